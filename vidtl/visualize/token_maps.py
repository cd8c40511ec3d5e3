"""Maps of weights over the frames of one clip: TokenLearner's token maps, or the attention rollout of a plain ViViT.

Axes: V views of a video, T frames, H W pixels, C channels, t timesteps, S maps per timestep, h w token grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vidtl.data.batch import normalize, to_rgb
from vidtl.errors import UserError
from vidtl.models.base import VideoModel, evaluation_mode
from vidtl.visualize.rollout import clip_rollout

OPACITY = 0.75
"""Opacity of the heat colors where a map is largest; where it is smallest the frame is only dimmed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenMapImages:
    """Arrays of a figure."""

    names: tuple[str, ...]
    """[S]."""
    tubelet_length: int
    """Frames of the clip in one timestep."""
    frames: NDArray[np.uint8]
    """[t, H, W, 3]; the middle frame of each tubelet."""
    heat: NDArray[np.float32]
    """[S, t, H, W] in 0..1; each map upsampled bilinearly and scaled by its extremes, or those of the whole clip."""
    entropies: NDArray[np.float64]
    """[t, S] in 0..1; see `entropy_over_time`."""
    overlaps: NDArray[np.float64]
    """[t, S, S] in 0..1; see `overlap_over_time`."""
    time_shares: NDArray[np.float64]
    """[t, S]; share of each timestep in the weight of a map over the whole clip."""

    @property
    def entropy(self) -> NDArray[np.float64]:
        """[S]; mean over time, from 0 (one place) to 1 (uniform)."""
        return self.entropies.mean(axis=0)  # type: ignore[no-any-return]

    @property
    def overlap(self) -> float:
        """Mean over time and pairs of maps, from 0 (disjoint) to 1 (equal); NaN for one map."""
        first, second = np.triu_indices(len(self.names), k=1)
        return float(self.overlaps[:, first, second].mean()) if first.size else float("nan")

    def record(self) -> dict[str, object]:
        """Convert entropy and overlap to JSON values."""
        return {
            "maps": list(self.names),
            "timesteps": len(self.frames),
            "frames_per_timestep": self.tubelet_length,
            "entropy": self.entropy.tolist(),
            "entropy_over_time": self.entropies.tolist(),
            "mean_overlap": self.overlap if len(self.names) > 1 else None,
            "overlap": self.overlaps.mean(axis=0).tolist(),
            "overlap_over_time": self.overlaps.tolist(),
            "time_shares": self.time_shares.tolist(),
        }


class ClipMaps(NamedTuple):
    """Maps over the frames of a clip."""

    kind: Literal["tokens", "rollout"]
    frames: NDArray[np.uint8]
    """[T, H, W, C] RGB."""
    images: TokenMapImages


def clip_maps(model: VideoModel, pixels: torch.Tensor, color: int) -> ClipMaps:
    """Compute the maps of the first view from uint8 [V, T, ...] and a color code; UserError for one without maps."""
    rgb_BTCHW, frames = rgb_clip(pixels, color)
    input_BTCHW = normalize(rgb_BTCHW, model.clip_config).to(next(model.parameters()).device)
    encoder = getattr(model, "encoder", model)
    if getattr(encoder, "token_learners", None) or getattr(encoder, "token_learner", None):
        maps_tShw = clip_token_maps(model, input_BTCHW)
        return ClipMaps("tokens", frames, token_map_images(maps_tShw, frames, len(frames) // len(maps_tShw)))
    maps_tShw = clip_rollout(model, input_BTCHW)[:, None]
    images = token_map_images(maps_tShw, frames, len(frames) // len(maps_tShw), ("rollout",), compare_timesteps=True)
    return ClipMaps("rollout", frames, images)


def rgb_clip(pixels: torch.Tensor, color: int) -> tuple[torch.Tensor, NDArray[np.uint8]]:
    """Convert the first view of a video to RGB, as float [1, T, C, H, W] in 0..1 and as uint8 [T, H, W, C]."""
    rgb_BTCHW = to_rgb(pixels[:1], torch.tensor([color]))
    return rgb_BTCHW, rearrange((rgb_BTCHW[0] * 255).round().byte(), "T C H W -> T H W C").numpy()


def clip_token_maps(model: nn.Module, input_BTCHW: torch.Tensor) -> NDArray[np.float32]:
    """Compute the maps [t, S, h, w] of a batch's first clip, in evaluation mode; UserError without TokenLearner."""
    token_maps = getattr(model, "token_maps", None)
    if token_maps is None:
        raise UserError("token maps need a model with TokenLearner; this one has none (model.token_learner)")
    with evaluation_mode(model), torch.inference_mode():
        maps: NDArray[np.float32] = token_maps(input_BTCHW[:1])[0].float().cpu().numpy()
    return maps


def token_map_images(
    maps_tShw: NDArray[np.floating],
    clip_THWC: NDArray[np.uint8],
    tubelet_length: int,
    names: Sequence[str] = (),
    compare_timesteps: bool = False,
) -> TokenMapImages:
    """Prepare the arrays of a figure; ValueError for shapes that do not fit, or negative or non-finite weights.

    Map i covers `tubelet_length` frames of `clip_THWC`, RGB before normalization, from i * tubelet_length on. With
    `compare_timesteps`, a map is scaled by the minimum and maximum of all its timesteps instead of each timestep's.
    """
    maps = np.asarray(maps_tShw, dtype=np.float64)
    if maps.ndim != 4 or tubelet_length < 1 or len(maps) * tubelet_length > len(clip_THWC):
        raise ValueError(f"maps {maps.shape} of {tubelet_length} frames each do not fit a clip {clip_THWC.shape}")
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("token maps must be finite and not negative")
    frames = clip_THWC[tubelet_length // 2 :: tubelet_length][: len(maps)]
    return TokenMapImages(
        names=tuple(names) or tuple(f"token {s + 1}" for s in range(maps.shape[1])),
        tubelet_length=tubelet_length,
        frames=frames,
        heat=_heat(maps, frames.shape[1:3], compare_timesteps),
        entropies=entropy_over_time(maps),
        overlaps=overlap_over_time(maps),
        time_shares=_shares(reduce(maps, "t S h w -> S t", "sum")).T,
    )


def entropy_over_time(maps_tShw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the entropy [t, S] of maps over N places, -sum p log p / log N; 1 for zeros, 0 for a single place."""
    shares = _shares(rearrange(maps_tShw, "t S h w -> t S (h w)"))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies: NDArray[np.float64] = -reduce(shares * logs, "t S N -> t S", "sum")
    scale = np.log(shares.shape[-1])
    return np.clip(entropies / scale, 0, 1) if scale > 0 else np.zeros_like(entropies)


def overlap_over_time(maps_tShw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the shared mass [t, S, S] of two maps p and q, sum min(p, q), from 0 (disjoint) to 1 (equal)."""
    shares = _shares(rearrange(maps_tShw, "t S h w -> t S (h w)"))
    columns = [np.minimum(shares, shares[:, s, None]).sum(axis=-1) for s in range(shares.shape[1])]
    return np.stack(columns, axis=-1)


def overlay(heat_StHW: NDArray[np.float32], frames_tHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a color scale, whose opacity follows the heat, over dimmed grayscale frames: uint8 [S, t, H, W, 3]."""
    base = 0.6 * (frames_tHWC @ np.array([0.299, 0.587, 0.114], np.float32))[None, ..., None]
    colors = 255 * colormaps["inferno"](heat_StHW)[..., :3].astype(np.float32)
    weights = OPACITY * heat_StHW[..., None]
    return ((1 - weights) * base + weights * colors).round().astype(np.uint8)  # type: ignore[no-any-return]


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalize weights along the last axis; zeros become uniform."""
    totals = weights.sum(axis=-1, keepdims=True)
    even = np.full_like(weights, 1 / weights.shape[-1])
    return np.divide(weights, totals, out=even, where=totals > 0)  # type: ignore[no-any-return]


def _heat(maps_tShw: NDArray[np.float64], size: tuple[int, ...], compare_timesteps: bool) -> NDArray[np.float32]:
    maps = torch.from_numpy(maps_tShw)
    scaled_alike = "t S h w -> 1 S 1 1" if compare_timesteps else "t S h w -> t S 1 1"
    lowest, highest = reduce(maps, scaled_alike, "min"), reduce(maps, scaled_alike, "max")
    spread = highest - lowest
    scaled = torch.where(spread > 0, (maps - lowest) / torch.where(spread > 0, spread, 1), 0)
    upsampled = functional.interpolate(scaled, size=size, mode="bilinear", align_corners=False)
    return np.asarray(rearrange(upsampled, "t S H W -> S t H W").float().numpy())
