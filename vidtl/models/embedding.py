"""From a clip to a grid of tokens, and position embeddings of the grid, learned or fixed.

Sources: ViViT sections 3.2 (tubelets, or patches of evenly spaced frames) and 4 (learned positions, N(0, 0.02));
Vaswani et al., 2017, section 3.5 (sines and cosines over the sequence); Beyer et al., 2022 (arXiv 2205.01580), extended
to t, h, w as in ViViT's reference code.
"""

import math
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange, reduce
from torch import Tensor, nn

from vidtl.config.checks import require
from vidtl.errors import UserError

Kind = Literal["learned", "sincos_1d", "sincos_3d"]
Resizing = Literal["linear", "bicubic", "bicubic_antialiased", "bilinear_antialiased", "nearest"]
Tubelet = tuple[int, int, int]

CELL = 4  # height and width in pixels of the cells of `log_energies`


class Grid(NamedTuple):
    """Number of tokens along time, height and width."""

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.t * self.h * self.w

    def __str__(self) -> str:
        return f"{self.t}x{self.h}x{self.w}"


def log_energies(input_BTCHW: Tensor) -> Tensor:
    """Reduce clips whose last frame is their background to log energies: `[B, T + 1, 3, H, W] -> [B, T, 2, h, w]`.

    log(1 + 85 e) - 1 of e = mean |x_t - background| and mean |x_t - x_(t-1)| over the pixels of a cell, gray in 0..1;
    the first frame has the difference of the second. Differences of 3 gray levels of 255 have log(2) - 1.
    """
    clip_BTHW, background_B1HW = input_BTCHW.mean(dim=2).tensor_split([-1], dim=1)
    steps = clip_BTHW.diff(dim=1)
    changes_BTCHW = torch.stack([clip_BTHW - background_B1HW, torch.cat([steps[:, :1], steps], dim=1)], dim=2)
    energies_BTChw = reduce(changes_BTCHW.abs(), "B T C (h a) (w b) -> B T C h w", "mean", a=CELL, b=CELL)
    return torch.log1p(85 * energies_BTChw) - 1


class TubeletEmbedding(nn.Module):
    """Project each box of frames x pixels x pixels to one token: `input_BTCHW -> tokens_BtND` with N = h * w.

    Equal to a Conv3d whose stride is its kernel, which loads by reshape, and several times as fast in bf16. The kernel
    starts as Flax starts convolutions: a truncated normal of variance 1 / fan-in, cut at 2 (0.88 of the spread). With a
    `background`, the last frame, it sees `log_energies`, in training with an offset of N(0, 0.2) for each clip.
    """

    def __init__(self, tubelet: Tubelet, width: int, background: bool = False) -> None:
        super().__init__()
        self.tubelet, self.background = tubelet, background
        self.cells = (tubelet[0], tubelet[1] // CELL, tubelet[2] // CELL) if background else tubelet
        fan_in = (2 if background else 3) * math.prod(self.cells)
        self.proj = nn.Linear(fan_in, width)
        std = fan_in**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.proj.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.proj.bias)

    def forward(self, input_BTCHW: Tensor) -> Tensor:
        if self.background:
            input_BTCHW = log_energies(input_BTCHW)
            if self.training:  # as other light and contrast would
                input_BTCHW = input_BTCHW + 0.2 * torch.randn(len(input_BTCHW), 1, 1, 1, 1, device=input_BTCHW.device)
        tokens_BtND: Tensor = self.proj(cut_tubelets(input_BTCHW, self.cells))
        return tokens_BtND


def cut_tubelets(input_BTCHW: Tensor, tubelet: Tubelet) -> Tensor:
    """Return the values of each tubelet: `[B, t, N, C * frames * height * width]`."""
    length, height, width = tubelet
    pattern = "B (t length) C (h a) (w b) -> B t (h w) (C length a b)"
    return rearrange(input_BTCHW, pattern, length=length, a=height, b=width)  # type: ignore[no-any-return]


def resize_patch(kernel: Tensor, source: Tubelet, target: Tubelet, resizing: str = "bilinear") -> Tensor:
    """Resample kernels `[D, C t h w]` to another height and width, each frame of a tubelet alone.

    The new kernel gives for a resized patch what the old one gave for the patch, as nearly as possible: w' = w B⁺, with
    B the matrix of the resize (FlexiViT, Beyer et al., 2023, section 3.4: bilinear; timm: bicubic, antialiased).
    """
    (_, *old), (_, *new) = source, target
    mode, _, antialiased = resizing.partition("_")
    pixels = torch.eye(old[0] * old[1], dtype=torch.float64).view(-1, 1, *old)
    resized = F.interpolate(pixels, size=new, mode=mode, antialias=bool(antialiased)).flatten(1)  # B transposed
    frames = kernel.double().view(kernel.shape[0], -1, old[0] * old[1])
    fitted: Tensor = (frames @ torch.linalg.pinv(resized).mT).flatten(1).to(kernel.dtype)
    return fitted


def tubelet_grid(tubelet: Tubelet, num_frames: int, frame_size: tuple[int, int]) -> Grid:
    """Return the number of tubelets along time, height and width; UserError for a clip that they do not fill."""
    length, *patch = tubelet
    given = f"(model.tubelet is {list(tubelet)})"
    allowed = f"multiples of the tubelet's {length} frames {given}"
    require(num_frames % length == 0, "clip.num_frames", num_frames, allowed)
    for side, size, part in zip(("height", "width"), frame_size, patch, strict=True):
        near = max(size // part, 1) * part
        allowed = f"a {side} that is a multiple of the tubelet's {part} pixels, such as {near} {given}"
        require(size % part == 0, "clip.frame_size", list(frame_size), allowed)
    return Grid(num_frames // length, frame_size[0] // patch[0], frame_size[1] // patch[1])


def uniform_frames(num_frames: int, num_sampled: int) -> Tensor:
    """Return the indices of `num_sampled` evenly spaced frames: round(s k) for k = 1 ..., s = T / (n + 1).

    Halves round to even. Source: the frame sampler of ViViT's reference code.
    """
    if num_sampled >= num_frames:
        return torch.arange(num_frames)
    step = num_frames / (num_sampled + 1)
    indices = np.round(step * np.arange(1, num_sampled + 1)).astype(np.int64)
    return torch.from_numpy(np.minimum(indices, num_frames - 1))


class PositionEmbedding(nn.Module):
    """Add one row per token of a grid: `[B, t, N, D] -> [B, t, N, D]`.

    The first `num_prefix` rows are those of a class token and of registers. They belong to no timestep: the tokens have
    them once, or the same ones in front of each timestep. A grid with one timestep, or with one place, serves all.

    Fixed embeddings are not saved. `resizing` is the method for learned ones of another grid, see `resize_positions`.
    """

    weight: Tensor

    def __init__(
        self, grid: Grid, width: int, kind: Kind = "learned", num_prefix: int = 0, resizing: Resizing = "linear",
        std: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grid = grid
        self.num_prefix = num_prefix
        self.resizing = resizing
        if kind == "learned":
            self.weight = nn.Parameter(torch.empty(grid.size + num_prefix, width))
            nn.init.normal_(self.weight, std=std)
        else:
            in_space = F.pad(sincos_3d(grid, width), (0, 0, num_prefix, 0))
            fixed = sincos_1d(grid.size + num_prefix, width) if kind == "sincos_1d" else in_space
            self.register_buffer("weight", fixed, persistent=False)

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        """Add rows, which run time-major over t and N."""
        if self.grid.t == 1 or (self.num_prefix and tokens_BtND.shape[1] == 1):
            return tokens_BtND + self.weight
        rows_tND: Tensor = rearrange(self.weight[self.num_prefix :], "(t N) D -> t N D", t=self.grid.t)
        if self.num_prefix:
            prefix_tPD = self.weight[: self.num_prefix].expand(self.grid.t, -1, -1)
            rows_tND = torch.cat([prefix_tPD, rows_tND], dim=1)
        return tokens_BtND + rows_tND


def sincos_1d(length: int, width: int) -> Tensor:
    """Return `[length, width]`: sine of position / 10000^(2i / width) in even columns, cosine in odd ones."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    table: Tensor = rearrange(torch.stack([angles.sin(), angles.cos()]), "part L i -> L (i part)")
    return table[:, :width].float()


def sincos_3d(grid: Grid, width: int) -> Tensor:
    """Return `[t * h * w, width]`: a sixth each for sine and cosine of t, w and h, in that order; others are 0."""
    part = width // 6
    frequencies = 10000.0 ** (-torch.arange(part, dtype=torch.float64) / max(part, 1))
    t, h, w = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [torch.outer(axis.flatten(), frequencies) for axis in (t, w, h)]
    table = torch.cat([columns for angle in angles for columns in (angle.sin(), angle.cos())], dim=1)
    return F.pad(table, (0, width - 6 * part)).float()


def resize_positions(
    weight_LD: Tensor, source: Grid, target: PositionEmbedding, name: str, resizing: Resizing | None = None
) -> Tensor:
    """Resize learned positions of one grid to another.

    The grid of an image (one timestep) is thereby repeated along time. Rows of a class token and of registers, the
    first ones, are copied; further ones are left out, and rows that the source has not are 0.

    Args:
        weight_LD: rows of prefix tokens, then those of the grid `source`.
        name: file and parameter, for messages.
        resizing: default: that of `target`. `linear` keeps the corner tokens in place (ViViT), the others the corners
            of the picture: `bicubic` (T2T-ViT, transformers) or antialiased (timm), `bilinear` antialiased, also along
            time (VideoPrism), `nearest` (TimeSformer).

    UserError: there are fewer rows than the source grid has.
    """
    num_prefix = weight_LD.shape[0] - source.size
    if num_prefix < 0:
        raise UserError(f"{name} has {weight_LD.shape[0]} rows, but a grid of {source} has {source.size}")
    grid_rows = weight_LD[num_prefix:]
    if source != target.grid:
        volume = rearrange(grid_rows.float(), "(t h w) D -> D t h w", t=source.t, h=source.h, w=source.w)
        volume = _resize(volume, target.grid, resizing or target.resizing)
        grid_rows = rearrange(volume, "D t h w -> (t h w) D").to(weight_LD.dtype)
    prefix_rows = weight_LD[: min(num_prefix, target.num_prefix)]
    missing = target.num_prefix - len(prefix_rows)
    return torch.cat([prefix_rows, grid_rows.new_zeros(missing, grid_rows.shape[1]), grid_rows])


def _resize(volume_Dthw: Tensor, grid: Grid, resizing: Resizing) -> Tensor:
    if resizing == "linear":
        volume = F.interpolate(volume_Dthw[None], size=tuple(grid), mode="trilinear", align_corners=True)
        return volume[0]
    mode, _, antialiased = resizing.partition("_")
    interpolate = partial(F.interpolate, mode=mode, antialias=bool(antialiased))
    if volume_Dthw.shape[2:] != grid[1:]:
        frames_tDhw = interpolate(rearrange(volume_Dthw, "D t h w -> t D h w"), size=grid[1:])
        volume_Dthw = rearrange(frames_tDhw, "t D h w -> D t h w")
    if volume_Dthw.shape[1] in (1, grid.t):
        return volume_Dthw.expand(-1, grid.t, -1, -1)
    # One wide picture: torch 2.14 resizes pictures of width 1, such as [D, t, 1], wrongly where it antialiases.
    picture = rearrange(volume_Dthw, "D t h w -> 1 1 t (D h w)")
    picture = interpolate(picture, size=(grid.t, picture.shape[-1]))
    return rearrange(picture, "1 1 t (D h w) -> D t h w", h=grid.h, w=grid.w)  # type: ignore[no-any-return]
