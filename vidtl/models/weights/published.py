"""Published weights by name: a model directory, weights of another project, or a repository of Hugging Face."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.documents import read_json
from vidtl.config.load import dotted
from vidtl.config.model import ARCHITECTURES
from vidtl.errors import UserError
from vidtl.models.base import CONFIG_FILE, WEIGHTS_FILE, VideoModel
from vidtl.models.directory import read_model
from vidtl.models.factory import build_model
from vidtl.models.weights.families import FAMILIES, find_reader
from vidtl.models.weights.files import INDEX_FILE, PREPROCESSOR_FILES, TORCH_FILE, read_directory_state, read_state
from vidtl.models.weights.fit import register_counts
from vidtl.models.weights.flax import read_flax
from vidtl.models.weights.hub import WEIGHT_SUFFIXES, find_source
from vidtl.models.weights.load import LoadReport, PublishedModel, load_weights

WITH_TOKEN_LEARNER = [name for name, each in ARCHITECTURES.items() if "token_learner.num_tokens" in each.defaults]

_OF_A_RUN = ("dropout", "attention_dropout", "stochastic_depth", "stochastic_depth_rescale", "token_dropout")


def read_published(name: str | Path) -> PublishedModel:
    """Read weights and the settings they need, ours or of `FAMILIES`; UserError as `find_source`, or for damage."""
    source = find_source(str(name))
    folder = source if source.is_dir() else source.parent
    config = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    is_own = "num_outputs" in config or isinstance(config.get("model"), dict)
    if is_own and source.is_dir():
        saved, weights = read_model(source)
        model = {key: value for key, value in asdict(saved.model).items() if value is not None}
        found = PublishedModel(model=model, clip=vars(saved.clip), weights=weights)
        return replace(found, multi_label=saved.multi_label, num_outputs=saved.num_outputs)
    wrappers = re.compile(r"^(module\.|_orig_mod\.)+|\b_orig_mod\.")  # of torch's DDP and compile
    state = {wrappers.sub("", key): tensor.float() for key, tensor in _read_tensors(source).items()}
    preprocessor = next((each for name in PREPROCESSOR_FILES if (each := folder / name).exists()), None)
    config["preprocessor"] = read_json(preprocessor) if preprocessor else {}
    reader = find_reader(config, state)
    if reader is None:
        shown = config.get("model_type") or config.get("architecture") or ", ".join(["no model_type", *state][:4])
        raise UserError(f"{source} holds weights of an unknown model ({shown}); allowed: {', '.join(FAMILIES)}")
    try:
        return reader(config, state, str(source))
    except (AttributeError, LookupError, RuntimeError, TypeError) as error:  # readers multiply and reshape tensors
        raise UserError(f"{source} does not fit its family ({error!r}); allowed: whole weights and settings") from error


def _read_tensors(source: Path) -> dict[str, Tensor]:
    """Read a file, or the files of a directory: the usual ones, or the only one that is named or looks like weights."""
    if source.is_dir() and not {WEIGHTS_FILE, INDEX_FILE, TORCH_FILE}.intersection(os.listdir(source)):
        files = [file for file in source.iterdir() if file.suffix in WEIGHT_SUFFIXES]
        named = [file for file in files if file.stem in ("model", "checkpoint", "weights")] or files
        source = named[0] if len(named) == 1 else source
    read = read_directory_state if source.is_dir() else read_flax if source.suffix == ".npz" else read_state
    return read(source)


def build_published(
    published: PublishedModel, clip: ClipConfig | None = None, num_classes: int = 400
) -> tuple[VideoModel, LoadReport]:
    """Build the model as published, with its weights, class names and clip; image models take single frames.

    Another `clip` resizes positions; `num_classes` are for a fresh classifier. UserError: weights unfit for settings.
    """
    weights, settings = published.weights, dict(published.model)
    if (count := len(weights.class_names)) not in (0, published.num_classes or count):
        raise UserError(f"{weights.source} has {count} class names; allowed: {published.num_classes} or none")
    _require_place(published, {})
    has_learner = settings.get("architecture", "vivit") in WITH_TOKEN_LEARNER
    learner = TokenLearnerConfig(**settings.pop("token_learner", {"num_tokens": 0} if has_learner else {}))
    clip = clip or ClipConfig(**{"num_frames": 1, **published.clip})
    model = build_model(ModelConfig(**settings, token_learner=learner), clip, published.num_classes or num_classes)
    report = load_weights(model, weights, allow_missing=() if published.num_classes else ("head.*",))
    if published.num_classes:
        model.class_names, model.multi_label = tuple(weights.class_names), published.multi_label
    return model, report


def load_published(name: str, clip: ClipConfig | None = None, num_classes: int = 400) -> VideoModel:
    """Build the model of published weights, see `read_published` and `build_published`."""
    return build_published(read_published(name), clip, num_classes)[0]


VideoModel.load_published = staticmethod(load_published)


def settings_of_weights(published: PublishedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an experiment that weights decide, by dotted key, apart from those given.

    TokenLearner is left out unless it is given, or the weights have it; dropout and stochastic depth are those of a
    run. Keys of the temporal encoder and the order of attentions belong to the form; sizes to `model.size`.
    """
    model = {key: value for key, value in published.model.items() if key not in _OF_A_RUN}
    clip = dict(published.clip)
    _require_place(published, given)
    if given.get("model.form", model.get("form")) != model.get("form"):
        of_form = ("form", "temporal_depth", "temporal_input", "attention_order")
        model = {key: value for key, value in model.items() if key not in of_form}
    pooling = given.get("model.pooling", model.get("pooling"))
    if given.get("model.temporal_input", model.get("temporal_input", "pooled")) == "pooled" and pooling:
        model["num_registers"] = register_counts(published, pooling)[-1]  # keeps a class token that is not pooled
    if "model.size" in given:
        sizes = ARCHITECTURES[model.get("architecture", "vivit")].sizes
        decided = {"size", "mlp_width"}.union(*sizes.values())
        model = {key: value for key, value in model.items() if key not in decided}
    if "clip.frame_size" in given and clip.get("short_side"):
        side = max(given["clip.frame_size"])
        clip["short_side"] = max(side, round(clip["short_side"] * side / max(clip["frame_size"]) / 2) * 2)
    settings = dotted({"model": model, "clip": clip})
    learner = "model.token_learner."
    has_learner = any(key.startswith(learner) for key in (*settings, *given))
    if settings.get("model.architecture", "vivit") in WITH_TOKEN_LEARNER and not has_learner:
        settings[f"{learner}num_tokens"] = 0
    return {key: value for key, value in settings.items() if key not in given}


def _require_place(published: PublishedModel, given: Mapping[str, Any]) -> None:
    """Raise a UserError for weights of a TokenLearner that stands after an unknown block."""
    learner, key = published.model.get("token_learner", {}), "model.token_learner.after_block"
    if learner.get("num_tokens") and learner.get("after_block") is None and key not in given:
        place = "the number of blocks before TokenLearner, on which no parameter depends"
        raise UserError(f"{key} is not given; needed with {published.weights.source}: {place}")
