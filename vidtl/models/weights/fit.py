"""Fit published weights into any form of ViViT: image models into video models, and into blocks with two attentions.

Sources: ViViT, section 3.4 (inflation of the patch embedding, repeated positions, attention over time); FlexiViT
(Beyer et al., 2023) for patches of another size.
"""

import logging
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor

from vidtl.config.checks import require
from vidtl.errors import UserError
from vidtl.models.base import VideoModel
from vidtl.models.embedding import Grid, TubeletEmbedding, resize_patch
from vidtl.models.vivit import ViViT
from vidtl.models.weights.load import PublishedModel, SourceWeights

_log = logging.getLogger(__name__)

Inflation = Literal["central_frame", "average"]

DECIDED = (
    *("width", "depth", "num_heads", "head_width", "mlp_width", "positions"),
    *("activation", "norm_eps", "input_norm", "attention_softcap"),
)
"""Keys of `model` that weights decide, whatever the form of the model."""

READ_OUT = ("pooling", "pooling_width", "pooled_norm_eps")
"""Keys of `model` that a classifier of the weights decides."""

_PARTS = ("head.*", "pool.*", "temporal_encoder.*", "encoder.token_learners.*", "encoder.token_fusers.*")
"""Parts that may be fresh: each as a whole, if the source has nothing of it."""


def is_image_model(published: PublishedModel) -> bool:
    """Return True for weights of single images, whose classifier is of no use for videos."""
    settings = published.model
    alone = settings.get("form") == "factorised_encoder" and settings.get("temporal_depth") == 0
    return alone and "num_frames" not in published.clip


def register_counts(published: PublishedModel, pooling: str | None) -> list[int]:
    """Return the numbers of registers that a model may have; a class token that is not pooled may be one more."""
    count = published.model.get("num_registers", 0)
    return [count, count + 1] if pooling != "cls" == published.model.get("pooling") else [count]


def check_decided(model: VideoModel, published: PublishedModel, has_new_head: bool) -> None:
    """Raise a UserError where a setting of the model contradicts the weights."""
    own, decided, source = model.model_config, published.model, published.weights.source
    keys = DECIDED if has_new_head or "head.weight" not in published.weights.state else (*DECIDED, *READ_OUT)
    for key in ("architecture", *keys):
        value = getattr(own, key)
        fits = value is None or value == decided.get(key, value)
        require(fits, f"model.{key}", value, f"{decided.get(key)!r}, which the weights of {source} need")
    counts = register_counts(published, own.pooling)
    allowed = f"{' or '.join(map(str, counts))}, which {source} has"
    require(own.num_registers in (None, *counts), "model.num_registers", own.num_registers, allowed)
    scale = decided.get("layer_scale", own.layer_scale)
    allowed = f"{'above 0' if scale else 0}, as the weights of {source} need"
    require(bool(own.layer_scale) == bool(scale), "model.layer_scale", own.layer_scale, allowed)


def warn_of_other_clip(model: VideoModel, published: PublishedModel) -> None:
    """Log the settings of the model's clips that are others than those of the weights, with both values."""
    for key in ("mean", "std", "frame_size", "num_frames", "stride"):
        value, trained = getattr(model.clip_config, key), published.clip.get(key)
        if trained is not None and value != trained:
            message = "clip.%s is %s; the weights of %s were trained with %s"
            _log.warning(message, key, value, published.weights.source, trained)


def fit(published: PublishedModel, model: ViViT, inflation: Inflation = "central_frame") -> SourceWeights:
    """Rearrange weights for the form, the tubelets and the pooling of a model.

    The patch embedding is resampled to other patches and spread over the frames of a tubelet; positions of an image are
    repeated along time or shared by all timesteps. Class token, registers, temporal encoder and pooling for which the
    model has no place are left out.

    The `inflation` `central_frame` puts the patch embedding of an image model at frame t // 2 of the tubelet and zeros
    elsewhere; `average` puts a t-th of it at every frame.

    UserError: tubelets or blocks that the model cannot take.
    """
    weights, settings = published.weights, published.model
    state, grids = dict(weights.state), dict(weights.grids)
    rows = state.get("encoder.positions.weight")
    if model.frames is not None and rows is not None and rows.shape == model.encoder.positions.weight.shape:
        grids["encoder.positions.weight"] = model.encoder.grid  # of single frames, not of a large image
    if settings.get("tokenizer", "tubelet") == "tubelet":
        if not isinstance(model.embed, TubeletEmbedding):
            raise UserError(f"model.tokenizer is {model.tokenizer!r}; allowed: 'tubelet' with {weights.source}")
        length, *patch = settings["tubelet"]
        tubelet = (1 if settings.get("tubelet_sampling") == "uniform" else length, *patch)
        kernel, target = state["embed.proj.weight"], model.embed.tubelet
        has_background = bool(published.clip.get("background"))
        fits = model.background == has_background and (tubelet[1:] == target[1:] or not has_background)
        allowed = f"{has_background} with the weights of {weights.source}; where true, with their patches of {patch}"
        require(fits, "clip.background", model.background, allowed)
        if tubelet[1:] != target[1:]:
            method = "bicubic_antialiased" if weights.resizing == "bicubic_antialiased" else "bilinear"
            kernel = resize_patch(kernel, tubelet, target, method)
        state["embed.proj.weight"] = _inflate(kernel, tubelet[0], target[0], inflation, weights.source)
    dropped = _fit_prefix(state, model, grids.get("encoder.positions.weight"))
    for name in [name for name in state if any(fnmatchcase(name, each) for each in _without_place(settings, model))]:
        del state[name]
        dropped.append(name)
    has_both = settings.get("form") == "factorised_self_attention"
    if has_both != (model.form == "factorised_self_attention"):
        allowed = f"factorised_self_attention with {weights.source}, whose blocks have two attentions"
        require(not has_both, "model.form", model.form, allowed)
        state = _both_attentions(state)
    return replace(weights, state=state, grids=grids, unused=(*weights.unused, *dropped))


def fresh_parts(model: VideoModel, weights: SourceWeights) -> tuple[str, ...]:
    """Return patterns of the names that may be missing: parts of which the source has nothing."""
    lacking = [part for part in _PARTS if not any(fnmatchcase(name, part) for name in weights.state)]
    tokens = [f"{name}.{part}" for name in ("encoder", "temporal_encoder") for part in ("cls", "registers", "norm.*")]
    single = [name for name in tokens if not any(fnmatchcase(each, name) for each in weights.state)]
    is_new_axis = isinstance(model, ViViT) and model.form == "factorised_self_attention"
    return (*lacking, *single, *(["encoder.blocks.*.norm_time.*", "encoder.blocks.*.scale_time.*"] * is_new_axis))


def _inflate(kernel: Tensor, source: int, target: int, inflation: Inflation, origin: str) -> Tensor:
    """Spread a patch embedding `[D, C h w]` of images over the frames of a tubelet: `[D, C t h w]`."""
    if source == target:
        return kernel
    require(source == 1, "frames of model.tubelet", target, f"{source}, as the weights of {origin} have")
    image_DC1P = kernel.view(kernel.shape[0], 3, 1, -1)
    if inflation == "average":
        return (image_DC1P / target).expand(-1, -1, target, -1).flatten(1)
    video_DCtP = image_DC1P.new_zeros(*image_DC1P.shape[:2], target, image_DC1P.shape[-1])
    video_DCtP[:, :, target // 2] = image_DC1P[:, :, 0]
    return video_DCtP.flatten(1)


def _without_place(settings: Any, model: ViViT) -> list[str]:
    """Return patterns of the source's parts that the model does not have in the same role."""
    patterns = []
    if settings.get("pooling") != model.pooling:
        patterns.append("pool.*")
    second = model.temporal_encoder
    if second is None or settings.get("temporal_input", "pooled") != model.temporal_input:
        patterns.append("temporal_encoder.*")
    for name, encoder in (("encoder", model.encoder), ("temporal_encoder", second)):
        if encoder is not None and isinstance(encoder.norm, torch.nn.Identity):
            patterns.append(f"{name}.norm.*")
    return patterns


def _fit_prefix(state: dict[str, Tensor], model: ViViT, grid: Grid | None) -> list[str]:
    """Keep class token and registers that the model has, with their rows of positions; return the names of others.

    A class token that is not pooled becomes the first register of a model with one more than the weights have.
    """
    rows, own = state.get("encoder.positions.weight"), model.encoder
    width = model.head.in_features
    parts = {
        "encoder.cls": state.get("encoder.cls", torch.empty(0)).view(-1, width),
        "encoder.registers": state.get("encoder.registers", torch.empty(0, width)),
    }
    kept = [own.cls is not None, own.registers is not None]
    if own.cls is None and own.registers is not None and len(own.registers) == 1 + len(parts["encoder.registers"]):
        state["encoder.registers"] = torch.cat([*parts.values()])
        del state["encoder.cls"]
        kept[0] = True
    counts = [len(part) for part in parts.values()]
    if rows is not None and grid is not None and len(rows) == grid.size + sum(counts):
        cls, registers, places = rows.tensor_split([counts[0], sum(counts)])
        cls = cls if counts[0] else rows.new_zeros(1, rows.shape[1])
        state["encoder.positions.weight"] = torch.cat([*([cls] * kept[0]), *([registers] * kept[1]), places])
    dropped = [name for name, has in zip(parts, kept, strict=True) if name in state and not has]
    for name in dropped:
        del state[name]
    return dropped


def _both_attentions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of plain blocks into those of factorised self-attention blocks.

    Attention over time starts from that over space, with an output projection of 0, so that the model starts as if each
    frame were alone. (The paper sets all of it to 0, which would let nothing but the output bias learn.)
    """
    parts = {"norm1": "norm_space", "norm2": "norm_mlp", "scale1": "scale_space", "scale2": "scale_mlp"}
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for plain, own in parts.items():
            name = name.replace(f".{plain}.", f".{own}.")
        split[name.replace(".attn.", ".attn_space.")] = tensor
        if ".attn." in name:
            split[name.replace(".attn.", ".attn_time.")] = torch.zeros_like(tensor) if ".proj." in name else tensor
    return split
