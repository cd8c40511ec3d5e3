"""Options and loading of a trained model, for the tools that use one."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from command_line import ModelParser, make_experiment, settings_of_file

from vidtl.annotations.records import ClassNames, Records
from vidtl.config import ExperimentConfig
from vidtl.config.checks import require
from vidtl.errors import UserError, did_you_mean
from vidtl.evaluation.calibration import read_calibration
from vidtl.evaluation.token_budget import TokenScores
from vidtl.models import VideoModel
from vidtl.models.base import token_choices, with_num_tokens
from vidtl.models.directory import load_model_directory, read_model_config
from vidtl.runtime.launch import on_main_process
from vidtl.training.checkpoint import Checkpoint, find_checkpoint

T = TypeVar("T")


def parse_with_model(parser: ModelParser) -> tuple[Namespace, ExperimentConfig, Checkpoint]:
    """Parse the command line over the settings of a model's run, and find the model, without verifying it."""
    options = parser.parse_args()
    checkpoint = find_checkpoint(options.checkpoint, options.step)
    try:
        if checkpoint.experiment_file:
            recorded = settings_of_file(checkpoint.experiment_file)
            most_workers = max(2, os.cpu_count() or 1)  # the run may be of another machine, or of anyone
            recorded["data.num_workers"] = min(recorded.get("data.num_workers", 2), most_workers)
        else:  # a model directory has the settings of its clip, but no experiment
            recorded = {f"clip.{name}": value for name, value in vars(read_model_config(checkpoint.path).clip).items()}
    except UserError:
        if checkpoint.path.is_dir():
            raise
        return parse_with_model(parser)  # a run that goes on has removed it
    config = make_experiment(options.settings, recorded)
    return options, config, checkpoint.with_average() if config.evaluation.averaged_weights else checkpoint


def load_present(
    options: Namespace, checkpoint: Checkpoint, load: Callable[[Checkpoint], T], accelerator: Accelerator
) -> tuple[Checkpoint, T]:
    """Verify and load the same checkpoint in all processes; the next one if its run removes it meanwhile."""
    found, failure = on_main_process(accelerator, lambda: checkpoint), None
    try:
        on_main_process(accelerator, found.verify)
        loaded = load(found)
    except (UserError, OSError) as error:
        failure = error
    failure = next(filter(None, gather_object([failure])), None)
    if not failure:
        return found, loaded
    if on_main_process(accelerator, found.path.is_dir):
        raise failure
    newer = on_main_process(accelerator, partial(find_checkpoint, options.checkpoint, options.step))
    return load_present(options, newer.with_average() if found.averaged else newer, load, accelerator)


def processes_on_device(accelerator: Accelerator) -> str:
    """Describe what a tool runs on, such as `2 processes on CPU`."""
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU"
    return f"{accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)} on {device}"


def load_for_records(model_directory: Path, records: Records) -> tuple[VideoModel, Records]:
    """Load a model with the data's classes first, and records with all of its; UserError where it lacks some."""
    model = load_model_directory(model_directory)
    known, own = model.class_names, records.classes
    if not known and model.num_classes != len(own):
        counts = f"{model.num_classes} classes without names and the data {len(own)}"
        raise UserError(f"{model_directory} has {counts}; allowed: a model and data of the same classes")
    if not known or known == own.names:
        return model, records
    if unknown := next((name for name in own.names if name not in known), ""):
        raise UserError(f"{model_directory} has no class {unknown!r}; {did_you_mean(unknown, known)}")
    names = (*own.names, *(name for name in known if name not in own))
    with torch.no_grad():
        for parameter in model.classifier()[1].parameters():
            parameter.copy_(parameter[[known.index(name) for name in names]])
    model.class_names = names
    return model, replace(records, classes=ClassNames(names))


def with_tokens(
    model: VideoModel, options: Namespace, checkpoint: Checkpoint, multi_label: bool = False
) -> tuple[VideoModel | TokenScores, dict[str, Any]]:
    """Return the model with the --tokens given, and its further settings; UserError where they do not fit."""
    counts, most, confidence = options.tokens, model.elastic_tokens, options.confidence
    if confidence is not None and (counts is None or len(counts) == 1):
        raise UserError(f"--confidence is {confidence:g}; allowed: with --tokens auto or K,K,...")
    if counts is None:
        return model, {}
    given, place = ",".join(map(str, counts)) or "auto", checkpoint.model_directory
    require(most > 0, "--tokens", given, f"with a model of model.token_learner.elastic true, which {place} is not")
    require(max(counts, default=1) <= most, "--tokens", given, f"1 to {most}, the tokens of {place}")
    if counts and confidence is None:
        network = TokenScores(model, counts) if len(counts) > 1 else with_num_tokens(model, *counts)
        return network, {"tokens": given}
    confidence = 0.9 if confidence is None else confidence
    require(0 < confidence <= 1, "--confidence", confidence, "above 0 to 1")
    counts = counts or token_choices(most)
    found = read_calibration(checkpoint, model, multi_label)
    temperatures = [found.token_temperatures.get(str(count), 1.0) if found else 1.0 for count in counts]
    network = TokenScores(model, counts, confidence, temperatures, multi_label)
    return network, {"tokens": f"{given}-{confidence}", "temperatures": temperatures}
