"""Maps over one clip as a still picture: a row per map, a column per timestep, and their figures below.

Axes: t timesteps, S maps.
"""

from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidtl.visualize import COLOURS, label_text, new_figure, save_figure
from vidtl.visualize.token_maps import TokenMapImages

MAX_COLUMNS = 8
"""Timesteps drawn; of longer clips, so many spread evenly."""

# Inches.
_CELL, _GAP, _MARGIN = 1.25, 0.05, 0.15
_LABELS, _TITLE, _FIGURES = 1.25, 0.75, 2.3


def draw_token_maps(images: TokenMapImages, path: Path, title: str = "") -> None:
    """Draw the frames, below them one row per map over time, and below those entropy and overlap, as a PNG."""
    num_maps, num_steps = images.heat.shape[:2]
    steps = np.unique(np.linspace(0, num_steps - 1, min(num_steps, MAX_COLUMNS)).round().astype(int))
    height_px, width_px = images.frames.shape[1:3]
    scale = _CELL / max(height_px, width_px)
    cell_width, cell_height = width_px * scale, height_px * scale
    grid_height = (num_maps + 1) * (cell_height + _GAP)
    width = max(7.0, _LABELS + len(steps) * (cell_width + _GAP) + _MARGIN)
    height = _TITLE + grid_height + 0.35 + _FIGURES + 0.55
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    for row, (name, cells_tHWC) in enumerate(zip(_row_names(images), [images.frames, *images.overlays], strict=True)):
        for column, step in enumerate(steps):
            corner = _LABELS + column * (cell_width + _GAP), _TITLE + row * (cell_height + _GAP)
            axes = _place(figure, *corner, cell_width, cell_height)
            axes.imshow(cells_tHWC[step], interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"t = {step + 1}", fontsize=8, pad=3)
            if column == 0:
                axes.text(-0.08, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=8)
    _draw_figures(figure, images, _TITLE + grid_height + 0.35)
    shown = f"{len(steps)} of {num_steps} timesteps of {images.tubelet_length} frames"
    figure.text(0.5, 1 - 0.12 / height, label_text(title, 90), ha="center", va="top", fontsize=10)
    figure.text(0.5, 1 - 0.33 / height, shown, ha="center", va="top", fontsize=8, color="0.35")
    save_figure(figure, path)


def _row_names(images: TokenMapImages) -> list[str]:
    means = [f"{name}\nentropy {mean:.2f}" for name, mean in zip(images.names, images.entropy, strict=True)]
    return ["frames", *means]


def _draw_figures(figure: Figure, images: TokenMapImages, top: float) -> None:
    """Entropy over time to the left; to the right how alike the maps are, or, for one map, its weight over time."""
    width = figure.get_figwidth()
    several = len(images.names) > 1
    right = _FIGURES + 0.9 if several else (width - 1) / 2 + 0.4
    entropy = _place(figure, 0.65, top, width - right - 0.65 - (0.85 if several else 0.2), _FIGURES)
    colours = dict(zip(images.names, cycle(COLOURS), strict=False))
    for number, (name, entropies_t) in enumerate(zip(images.names, images.entropies.T, strict=True)):
        style = "-" if number < len(COLOURS) else "--"
        _draw_over_time(entropy, entropies_t, name, colours[name], style)
    entropy.set_ylim(-0.02, 1.02)
    entropy.set_title("entropy: 0 one place, 1 everywhere alike", fontsize=8)
    if several:
        entropy.legend(fontsize=6, frameon=False, ncols=2, loc="best", labelspacing=0.2)
        _draw_overlap(_place(figure, width - right, top, _FIGURES, _FIGURES), images)
    else:
        shares = _place(figure, width - right + 0.3, top, right - 0.3 - _MARGIN, _FIGURES)
        _draw_over_time(shares, 100 * images.time_shares[:, 0], "", COLOURS[0], "-")
        shares.set_ylim(0, 110 * images.time_shares.max())
        shares.set_title("share of each timestep, %", fontsize=8)


def _draw_over_time(axes: Axes, values_t: np.ndarray, name: str, colour: str, style: str) -> None:
    steps = np.arange(1, len(values_t) + 1)
    axes.plot(steps, values_t, style, marker="o", markersize=2.5, linewidth=1, color=colour, label=label_text(name))
    axes.set_xlabel("timestep", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_overlap(axes: Axes, images: TokenMapImages) -> None:
    overlaps_SS = images.overlaps.mean(axis=0)
    axes.imshow(overlaps_SS, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    numbers = [str(s + 1) for s in range(len(overlaps_SS))]
    axes.set_xticks(range(len(numbers)), numbers)
    axes.set_yticks(range(len(numbers)), numbers)
    axes.tick_params(length=0, labelsize=7)
    axes.set_title(f"shared mass of two maps: mean {images.overlap:.2f}", fontsize=8)
    if len(numbers) <= 12:
        for (row, column), value in np.ndenumerate(overlaps_SS):
            colour = "white" if value > 0.55 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=6)


def _place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes by their upper left corner and size in inches."""
    total_width, total_height = figure.get_size_inches()
    bottom = 1 - (top + height) / total_height
    return figure.add_axes((left / total_width, bottom, width / total_width, height / total_height))
