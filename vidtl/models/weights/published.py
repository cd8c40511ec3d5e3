"""Published weights by name: a model directory, weights of another project, or a repository of Hugging Face."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.load import dotted
from vidtl.config.model import ARCHITECTURES
from vidtl.errors import UserError
from vidtl.models.base import CONFIG_FILE, VideoModel
from vidtl.models.directory import read_model_config, read_model_weights
from vidtl.models.factory import build_model
from vidtl.models.weights.families import FAMILIES, find_reader
from vidtl.models.weights.flax import read_flax
from vidtl.models.weights.hub import find_source
from vidtl.models.weights.load import PublishedModel, load_weights, read_directory_state, read_json, read_state

_PREPROCESSOR_FILE = "preprocessor_config.json"

# Keys of `clip` whose change the user is told of: a model has learned with these.
_TOLD = ("mean", "std", "frame_size", "num_frames", "stride")

_log = logging.getLogger(__name__)


def read_published(name: str) -> PublishedModel:
    """Read weights and the settings they need.

    Args:
        name: a file or directory, or `owner/name[@revision]` on the hub of Hugging Face: a model directory of this
            library, or weights of a family in `FAMILIES`.

    Raises:
        UserError: nothing of this kind is there, or a file is damaged, holds more than tensors, or is of a model that
            this library does not have.
    """
    source = find_source(name)
    config: dict[str, Any] = {}
    if source.is_dir() and (source / CONFIG_FILE).exists():
        config = read_json(source / CONFIG_FILE)
        if "num_outputs" in config or isinstance(config.get("model"), dict):
            return _read_own(source)
    if source.is_dir():
        state = read_directory_state(source)
    elif source.suffix == ".npz":
        state = {key: torch.from_numpy(array) for key, array in read_flax(source).items()}
    else:
        state = read_state(source)
    preprocessor = source / _PREPROCESSOR_FILE
    config["preprocessor"] = read_json(preprocessor) if preprocessor.exists() else {}
    reader = find_reader(config, state)
    if reader is None:
        known = ", ".join(FAMILIES)
        shown = config.get("model_type") or config.get("architecture") or ", ".join([*state][:3])
        raise UserError(f"{source} holds weights of an unknown model ({shown}); allowed: {known}")
    return reader(config, state, str(source))


def _read_own(directory: Path) -> PublishedModel:
    saved = read_model_config(directory)
    model = {key: value for key, value in asdict(saved.model).items() if value is not None}
    weights = read_model_weights(directory, saved)
    return PublishedModel(model=model, clip=vars(saved.clip), weights=weights, multi_label=saved.multi_label)


def build_published(published: PublishedModel, clip: ClipConfig | None = None) -> VideoModel:
    """Build the model as published, with its weights, class names and clip; image models take single frames.

    Args:
        published: weights and settings.
        clip: another number of frames or frame size, for which learned positions are resized.

    Raises:
        UserError: the weights do not fit their settings, or have no classifier.
    """
    weights, settings = published.weights, dict(published.model)
    _require_place(published, {})
    has_learner = settings.get("architecture", "vivit") in ("vivit", "mini_vit")
    learner = TokenLearnerConfig(**settings.pop("token_learner", {"num_tokens": 0} if has_learner else {}))
    clip = clip or ClipConfig(**{"num_frames": 1, **published.clip})
    config = ModelConfig(**settings, token_learner=learner)
    model = build_model(config, clip, weights.num_classes)
    load_weights(model, weights)
    model.class_names, model.multi_label = tuple(weights.class_names), published.multi_label
    return model


def load_published(name: str, clip: ClipConfig | None = None) -> VideoModel:
    """Build the model of published weights, see `read_published` and `build_published`."""
    return build_published(read_published(name), clip)


VideoModel.load_published = staticmethod(load_published)


def settings_of_weights(published: PublishedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an experiment that weights decide, by dotted key, apart from those given.

    Keys of the temporal encoder and the order of attentions belong to the form; sizes to `model.size`. A warning names
    the values of both where a given setting of the clip is another one than that of the weights.
    """
    model, clip = dict(published.model), dict(published.clip)
    _require_place(published, given)
    if given.get("model.form", model.get("form")) != model.get("form"):
        of_form = ("form", "temporal_depth", "temporal_input", "attention_order")
        model = {key: value for key, value in model.items() if key not in of_form}
    if "model.size" in given:
        sizes = ARCHITECTURES[model.get("architecture", "vivit")].sizes
        decided = {"size", "mlp_width"}.union(*sizes.values())
        model = {key: value for key, value in model.items() if key not in decided}
    if "clip.frame_size" in given and "short_side" in clip:
        side = max(given["clip.frame_size"])
        clip["short_side"] = max(side, round(clip["short_side"] * side / max(clip["frame_size"]) / 2) * 2)
    for key in _TOLD:
        value = given.get(f"clip.{key}", clip.get(key))
        if key in clip and value != clip[key]:
            message = "clip.%s is %s; the weights of %s were trained with %s"
            _log.warning(message, key, _plain(value), published.weights.source, _plain(clip[key]))
    settings = dotted({"model": model, "clip": clip})
    return {key: value for key, value in settings.items() if key not in given}


def _require_place(published: PublishedModel, given: Mapping[str, Any]) -> None:
    """Raise a UserError for weights of a TokenLearner that stands after an unknown block."""
    learner, key = published.model.get("token_learner", {}), "model.token_learner.after_block"
    if learner.get("num_tokens") and learner.get("after_block") is None and key not in given:
        place = "the number of blocks before TokenLearner, on which no parameter depends"
        raise UserError(f"{key} is not given; needed with {published.weights.source}: {place}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
