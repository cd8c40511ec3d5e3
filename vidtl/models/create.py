"""Models by name, with fresh or published weights."""

from dataclasses import asdict, fields, replace
from typing import Any

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.checks import require_choice
from vidtl.config.load import dotted
from vidtl.config.model import ARCHITECTURES
from vidtl.models.base import VideoModel
from vidtl.models.factory import build_model, parse_name
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published, settings_of_weights


def create_model(
    name: str,
    num_classes: int = 400,
    num_frames: int | None = None,
    frame_size: tuple[int, int] | None = None,
    pretrained: str = "",
    **overrides: Any,
) -> VideoModel:
    """Build the model of a name such as `vivit_b16x2_fe_tl8at3`, `B/16x2` or `t2t_vit_14`.

    Args:
        name: see `list_models`.
        num_frames, frame_size: T, and H and W in pixels; by default those of the weights, or of the published model.
        pretrained: weights to start from, see `read_published`: they decide what the name leaves open. A classifier of
            another number of classes stays fresh.
        overrides: keys of `ModelConfig`, such as `width=192`.

    UserError: an unknown name or key, a clip that the model cannot take, or weights that do not fit.
    """
    config = parse_name(name)
    for key in overrides:
        require_choice("an argument of create_model", key, [field.name for field in fields(ModelConfig)])
    clip = ARCHITECTURES[config.architecture].clip_of(str(config.size))
    given = {"num_frames": num_frames, "frame_size": frame_size}
    given = {key: value for key, value in given.items() if value}
    if not pretrained:
        return build_model(replace(config, **overrides), _clip(clip | given), num_classes)
    published = read_published(pretrained)
    named = {key: value for key, value in asdict(config).items() if key != "pooling" and value is not None}
    chosen = dotted({"model": named | overrides, "clip": given})
    decided = settings_of_weights(published, {key: value for key, value in chosen.items() if value is not None})
    own, clip_keys = (
        {key.rpartition(".")[2]: value for key, value in decided.items() if key.rpartition(".")[0] == section}
        for section in ("model", "clip")
    )
    config = replace(config, **({"pooling": None} | own | overrides))
    model = build_model(config, _clip(clip | clip_keys | given), num_classes)
    has_its_head = published.num_classes == num_classes
    load_pretrained(model, published, new_head=not has_its_head)
    model.class_names = tuple(published.weights.class_names) if has_its_head else ()
    return model


def _clip(settings: dict[str, Any]) -> ClipConfig:
    side = settings.get("short_side", 256)
    return ClipConfig(**{**settings, "short_side": side and max(side, *settings["frame_size"])})
