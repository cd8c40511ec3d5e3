"""Maps over one clip as a still figure: a row per map, a column per timestep, and entropy and overlap below.

Axes: t timesteps, S maps, H W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vidtl.visualize import COLORS, bare, label_text, new_figure, save_figure
from vidtl.visualize.token_maps import TokenMapImages

MAX_COLUMNS = 8
"""Timesteps drawn; of longer clips, so many spread evenly."""

MAX_ROWS = 16
"""Maps drawn."""

CELL_IN, BELOW_IN = 1.25, 2.6


def draw_maps(images: TokenMapImages, path: Path, title: str = "") -> None:
    """Draw the frames, below them one row per map over time, and below those entropy and overlap.

    Args:
        images: S maps.
        path: the file to write, PNG or WebP.
        title: one line above.
    """
    num_maps, num_steps = images.heat.shape[:2]
    steps = _spread(num_steps)
    rows = [images.frames[steps], *(overlays[steps] for overlays in images.overlays[:MAX_ROWS])]
    height, width = CELL_IN * np.array(images.frames.shape[1:3]) / max(images.frames.shape[1:3])
    above_in = 0.7 + len(rows) * height
    figure = new_figure(max(7.0, 1.4 + len(steps) * width), above_in + BELOW_IN)
    places = figure.add_gridspec(2, 2, height_ratios=(above_in, BELOW_IN))
    means = [f"{name}\nentropy {mean:.2f}" for name, mean in zip(images.names, images.entropy, strict=True)]
    _draw_grid(figure.add_subplot(places[0, :]), rows, ["frames", *means], steps)
    shown = f"{len(steps)} of {num_steps} timesteps of {images.tubelet_length} frames"
    figure.suptitle(f"{label_text(title, 90)}\n{shown}".strip(), fontsize=9)
    _draw_entropies(figure.add_subplot(places[1, 0]), images)
    (_draw_overlap if num_maps > 1 else _draw_time_shares)(figure.add_subplot(places[1, 1]), images)
    save_figure(figure, path)


def draw_frames(frames_THWC: NDArray[np.uint8], path: Path) -> None:
    """Draw frames of a clip in a row, for models without maps."""
    steps = _spread(len(frames_THWC))
    figure = new_figure(max(7.0, 1.4 + len(steps) * CELL_IN), 0.5 + CELL_IN)
    _draw_grid(figure.add_subplot(), [frames_THWC[steps]], ["frames"], steps)
    save_figure(figure, path)


def _spread(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_COLUMNS)).round().astype(np.int64))


def _draw_grid(
    axes: Axes, rows_tHWC: Sequence[NDArray[np.uint8]], names: Sequence[str], steps: NDArray[np.int64]
) -> None:
    """Draw all cells as one picture with white gaps: much faster than axes for each."""
    height, width = rows_tHWC[0].shape[1:3]
    gap = max(1, max(height, width) // 32)
    canvas = np.full((len(rows_tHWC) * (height + gap), len(steps) * (width + gap), 3), 255, np.uint8)
    for row, cells in enumerate(rows_tHWC):
        for column, cell in enumerate(cells):
            y, x = row * (height + gap), column * (width + gap)
            canvas[y : y + height, x : x + width] = cell
    axes.imshow(canvas, interpolation="nearest" if height < 100 else "antialiased")
    axes.set_yticks(height / 2 + (height + gap) * np.arange(len(rows_tHWC)), names[: len(rows_tHWC)])
    axes.set_xticks(width / 2 + (width + gap) * np.arange(len(steps)), [f"t = {step + 1}" for step in steps])
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)


def _draw_entropies(axes: Axes, images: TokenMapImages) -> None:
    for number, (name, entropies_t) in enumerate(zip(images.names, images.entropies.T, strict=True)):
        _draw_over_time(axes, entropies_t, name, number)
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("entropy: 0 one place, 1 everywhere alike", fontsize=8)
    if len(images.names) > 1:
        axes.legend(fontsize=6, frameon=False, ncols=2, loc="best", labelspacing=0.2)


def _draw_time_shares(axes: Axes, images: TokenMapImages) -> None:
    _draw_over_time(axes, 100 * images.time_shares[:, 0], "", 0)
    axes.set_ylim(0, 110 * images.time_shares.max())
    axes.set_title("share of each timestep, %", fontsize=8)


def _draw_over_time(axes: Axes, values_t: NDArray[np.float64], name: str, number: int) -> None:
    color, style = COLORS[number % len(COLORS)], "-" if number < len(COLORS) else "--"
    steps = np.arange(1, len(values_t) + 1)
    axes.plot(steps, values_t, style, marker="o", markersize=2.5, linewidth=1, color=color, label=label_text(name))
    axes.set_xlabel("timestep", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    bare(axes)


def _draw_overlap(axes: Axes, images: TokenMapImages) -> None:
    overlaps_SS = images.overlaps.mean(axis=0)
    axes.imshow(overlaps_SS, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    numbers = range(len(overlaps_SS))
    axes.set_xticks(numbers, [str(s + 1) for s in numbers])
    axes.set_yticks(numbers, [str(s + 1) for s in numbers])
    axes.tick_params(length=0, labelsize=7)
    axes.set_title(f"shared mass of two maps: mean {images.overlap:.2f}", fontsize=8)
    if len(numbers) <= 12:
        for (row, column), value in np.ndenumerate(overlaps_SS):
            color = "white" if value > 0.55 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=6)
