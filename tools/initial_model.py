"""The model of a training run before its first step."""

import logging
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from command_line import make_experiment

from vidtl.annotations.records import Records
from vidtl.config import ExperimentConfig
from vidtl.config.checks import require_each
from vidtl.models import VideoModel, build_model
from vidtl.models.weights.hub import find_source
from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published, settings_of_weights
from vidtl.runtime.launch import on_main_process
from vidtl.runtime.seeding import seed_torch
from vidtl.training.checkpoint import find_checkpoint
from vidtl.training.run_directory import RunDirectory

log = logging.getLogger("vidtl.train")


def with_initial_weights(
    config: ExperimentConfig, given: Mapping[str, Any], accelerator: Accelerator
) -> tuple[ExperimentConfig, PublishedModel | None]:
    """Read the weights that a run starts from, if any, and what they decide over the settings that are not `given`."""
    if not config.training.init_from:
        return config, None
    published = read_published(on_main_process(accelerator, lambda: _place(config.training.init_from)))
    given = {**given, "data.eval_split": config.data.eval_split}
    return make_experiment(given, settings_of_weights(published, given)), published


def _place(init_from: str) -> str:
    """Return the place of weights, for a run its best checkpoint (or last), averaged if it has an average."""
    if not RunDirectory(Path(init_from)).checkpoints.is_dir():
        return str(find_source(init_from))
    checkpoint = find_checkpoint(Path(init_from)).with_average()
    checkpoint.verify()
    log.info("checkpoint %s", checkpoint)
    return str(checkpoint.model_directory)


def initial_model(
    config: ExperimentConfig, records: Records, published: PublishedModel | None = None
) -> tuple[VideoModel, tuple[str, ...]]:
    """Build the model before its first step, equal in every process; also return the names that the weights lack."""
    seed_torch(config.training.seed)
    model = build_model(config.model, config.clip, len(records.classes))
    model.multi_label = records.multi_label
    model.class_names = records.classes.names
    if records.multi_label:
        model.set_class_prior(torch.from_numpy(records.video_targets().mean(axis=0)))
    if published:
        return model, load_pretrained(model, published, new_head=config.training.init_new_head).missing
    require_each(config.training, "training", "lora", operator.not_, "0 without training.init_from")
    return model, ()
