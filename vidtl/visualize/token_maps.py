"""Where each learned token looks: TokenLearner's spatial maps over the frames of one clip.

Axes: T frames, H W pixels, t tubelets, S tokens per timestep, h w token grid.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from vidtl.errors import UserError
from vidtl.visualize import label_text, new_figure, save_figure

MAX_COLUMNS = 8
"""Timesteps drawn; of longer clips, so many spread evenly."""

OPACITY = 0.75
"""Of the heat colours where a map is largest; where it is smallest the frame shows unchanged but dimmed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenMapImages:
    """What is drawn, as arrays."""

    frames: NDArray[np.uint8]
    """[t, H, W, 3]; the middle frame of each tubelet."""
    heat: NDArray[np.float32]
    """[S, t, H, W] in 0..1; each map upsampled bilinearly and scaled by its own minimum and maximum, because a map over
    N places holds values of about 1 / N, too small to see."""
    overlays: NDArray[np.uint8]
    """[S, t, H, W, 3]; `heat` in colours over `frames`."""
    entropy: NDArray[np.float64]
    """[S] in 0..1; entropy of each map over space, mean over time: 0 looks at one place, 1 everywhere alike."""
    overlap: float
    """Mean over time and pairs of tokens of the shared mass of two maps: 0 apart, 1 the same; NaN for one token."""


def clip_token_maps(model: nn.Module, input_BTCHW: torch.Tensor) -> NDArray[np.float32]:
    """Maps [t, S, h, w] of the first clip of a batch, in evaluation mode, before the pooling.

    Raises:
        UserError: a model without TokenLearner.
    """
    token_maps = getattr(model, "token_maps", None)
    if token_maps is None:
        raise UserError("token maps need a model with TokenLearner; this one has none (model.vivit.token_learner)")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            maps: NDArray[np.float32] = token_maps(input_BTCHW[:1])[0].float().cpu().numpy()
    finally:
        for module, training in modes:
            module.training = training
    return maps


def token_map_images(
    maps_tShw: NDArray[np.floating], clip_THWC: NDArray[np.uint8], tubelet_length: int
) -> TokenMapImages:
    """Prepare the arrays of a figure.

    Args:
        maps_tShw: weights of each token over the grid, not negative.
        clip_THWC: RGB frames as the model saw them, before normalisation; map i covers frames i * tubelet_length to
            (i + 1) * tubelet_length - 1.
        tubelet_length: frames per map.

    Raises:
        ValueError: shapes that do not fit, or negative or non-finite weights.
    """
    maps = np.asarray(maps_tShw, dtype=np.float64)
    if maps.ndim != 4 or clip_THWC.ndim != 4 or tubelet_length < 1 or len(maps) * tubelet_length > len(clip_THWC):
        raise ValueError(f"maps {maps.shape} of {tubelet_length} frames each do not fit a clip {clip_THWC.shape}")
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("token maps must be finite and not negative")
    frames = clip_THWC[tubelet_length // 2 :: tubelet_length][: len(maps)]
    heat = _heat(maps, frames.shape[1:3])
    return TokenMapImages(
        frames=frames,
        heat=heat,
        overlays=_overlay(heat, frames),
        entropy=spatial_entropy(maps),
        overlap=pairwise_overlap(maps),
    )


def spatial_entropy(maps_tShw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy [S] of each map as a distribution over its N places, divided by log N; mean over time.

    A map of zeros counts as even; a grid of one place as 0.
    """
    shares = _shares(maps_tShw)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies = -reduce(shares * logs, "t S N -> S", "sum") / len(shares)
    scale = np.log(shares.shape[-1])
    return entropies / scale if scale > 0 else np.zeros_like(entropies)


def pairwise_overlap(maps_tShw: NDArray[np.float64]) -> float:
    """Mean over time and pairs of tokens of the mass two maps share, the sum of min(p, q); NaN for one token."""
    shares = _shares(maps_tShw)
    first, second = np.triu_indices(shares.shape[1], k=1)
    if not first.size:
        return float("nan")
    return float(np.minimum(shares[:, first], shares[:, second]).sum(axis=-1).mean())


def draw_token_maps(images: TokenMapImages, path: Path, title: str = "") -> None:
    """Draw the frames and, below them, one row per token over time, as a PNG."""
    num_tokens, num_steps = images.heat.shape[:2]
    steps = np.unique(np.linspace(0, num_steps - 1, min(num_steps, MAX_COLUMNS)).round().astype(int))
    height, width = images.frames.shape[1:3]
    cell_width = 1.25 * min(1.0, width / height) + 0.05
    cell_height = cell_width * height / width
    figure = new_figure(max(5.0, 1.3 + cell_width * len(steps)), 0.9 + cell_height * (num_tokens + 1))
    figure.set_layout_engine("compressed", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    cells = figure.subplots(num_tokens + 1, len(steps), squeeze=False)
    for row, images_tHWC in enumerate([images.frames, *images.overlays]):
        for column, step in enumerate(steps):
            axes = cells[row, column]
            axes.imshow(images_tHWC[step], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        name = f"token {row}\nentropy {images.entropy[row - 1]:.2f}" if row else "frames"
        cells[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for column, step in enumerate(steps):
        cells[0, column].set_title(f"t = {step + 1}", fontsize=8)
    figure.supxlabel(_caption(images, len(steps)), fontsize=8)
    if title:
        figure.suptitle(label_text(title, 90), fontsize=10)
    save_figure(figure, path)


def _caption(images: TokenMapImages, num_shown: int) -> str:
    overlap = "" if np.isnan(images.overlap) else f"mean overlap of two tokens {images.overlap:.2f}; "
    return f"{overlap}entropy: 0 one place, 1 everywhere; {num_shown} of {images.heat.shape[1]} timesteps"


def _shares(maps_tShw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each map as a distribution over its places: [t, S, N]."""
    flat = rearrange(np.asarray(maps_tShw, np.float64), "t S h w -> t S (h w)")
    totals = flat.sum(axis=-1, keepdims=True)
    even = np.full_like(flat, 1 / flat.shape[-1])
    shares: NDArray[np.float64] = np.divide(flat, totals, out=even, where=totals > 0)
    return shares


def _heat(maps_tShw: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float32]:
    maps = torch.from_numpy(maps_tShw)
    lowest, highest = reduce(maps, "t S h w -> t S 1 1", "min"), reduce(maps, "t S h w -> t S 1 1", "max")
    spread = highest - lowest
    scaled = torch.where(spread > 0, (maps - lowest) / torch.where(spread > 0, spread, 1), 0)
    upsampled = functional.interpolate(scaled, size=size, mode="bilinear", align_corners=False)
    return np.asarray(rearrange(upsampled, "t S H W -> S t H W").float().numpy())


def _overlay(heat_StHW: NDArray[np.float32], frames_tHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey, dimmed frames under a perceptually even colour scale whose opacity follows the heat."""
    grey = frames_tHWC @ np.array([0.299, 0.587, 0.114], np.float32)
    base = 0.6 * grey[None, ..., None]
    colours = 255 * colormaps["inferno"](heat_StHW)[..., :3].astype(np.float32)
    weights = OPACITY * heat_StHW[..., None]
    blended: NDArray[np.uint8] = ((1 - weights) * base + weights * colours).round().astype(np.uint8)
    return blended
