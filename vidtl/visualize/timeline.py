"""The classes of a video over time. Axes: C cells of time, K classes."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.typing import ColorType
from numpy.typing import NDArray

from vidtl.video import Box, UnreadableVideo, View, open_video
from vidtl.visualize import VERMILION, label_text, new_figure, save_figure

MAX_ROWS, NUM_THUMBNAILS, NUM_COLUMNS = 8, 8, 1128
_WIDTH_IN, _MARGIN_IN, _ROW_IN, _TOP_IN, _BOTTOM_IN = 10.0, 0.3, 0.44, 1.1, 0.3
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
_NOT_READ = "0.88"


def draw_timeline(
    video: Path,
    path: Path,
    class_names: Sequence[str],
    duration_s: float,
    edges: NDArray[np.float64],
    probabilities_CK: NDArray[np.float64],
    segments: Sequence[tuple[str, float, float, float]],
) -> None:
    """Draw thumbnails, and a strip of `NUM_COLUMNS` for each of up to `MAX_ROWS` classes, 1,200 pixels wide.

    Classes with the longest segments come first, then those with the highest mean. A column has the highest probability
    of its cells, so that short events show; cells of NaN stay gray. `edges` [C + 1] are rising seconds from the start
    of the file, `segments` name, start and end in seconds and score. Plain arguments: figures import no evaluation.
    """
    spans = {name: [(start, end - start) for each, start, end, _ in segments if each == name] for name in class_names}
    lengths_s = np.array([sum(length for _, length in spans[name]) for name in class_names])
    means = np.nansum(probabilities_CK * np.diff(edges)[:, None], axis=0)
    shown = np.lexsort((-means, -lengths_s))[:MAX_ROWS]
    times_s = np.linspace(edges[0], edges[-1], NUM_COLUMNS + 1)
    cells = np.searchsorted(edges, times_s[:-1], "right") - 1, np.searchsorted(edges, times_s[1:], "left")
    columns = np.fmax.reduceat(np.pad(probabilities_CK, ((0, 1), (0, 0))), np.ravel(cells, "F"))[::2]
    height_in = _TOP_IN + len(shown) * _ROW_IN + _BOTTOM_IN
    figure, left, width = new_figure(_WIDTH_IN, height_in), _MARGIN_IN / _WIDTH_IN, 1 - 2 * _MARGIN_IN / _WIDTH_IN
    figure.set_layout_engine("none")
    axes = figure.add_axes((left, _BOTTOM_IN / height_in, width, 1 - (_TOP_IN + _BOTTOM_IN) / height_in))
    for row, k in enumerate(shown):
        axes.text(0, row + 0.42, label_text(class_names[k], 100), fontsize=8, va="bottom")
        axes.broken_barh([(0, duration_s)], (row + 0.45, 0.35), color=_NOT_READ)
        extent = (edges[0], edges[-1], row + 0.8, row + 0.45)
        axes.imshow(columns[None, :, k], "Blues", vmin=0, vmax=1, aspect="auto", extent=extent, zorder=2)
        axes.broken_barh(spans[class_names[k]], (row + 0.82, 0.08), color=VERMILION, linewidth=0.5)
    ticks_s = np.arange(0, duration_s * 1.0001, next((s for s in _STEPS_S if duration_s <= 12 * s), duration_s / 8))
    clock = [
        f"{s:g} s" if duration_s < 60 else str(timedelta(seconds=int(s)))[2 * (duration_s < 3600) :] for s in ticks_s
    ]
    axes.set_xticks(ticks_s, clock, fontsize=8)
    axes.set(xlim=(0, duration_s), ylim=(len(shown), 0), yticks=[])
    axes.spines[["left", "right", "top"]].set_visible(False)
    colors: dict[str, ColorType] = {f"{share:g}": colormaps["Blues"](share) for share in (0.1, 0.5, 1.0)}
    colors |= {"segment": VERMILION, "not read": _NOT_READ}
    handles = [Patch(color=color, label=label) for label, color in colors.items()]
    figure.legend(handles=handles, loc="upper right", ncols=5, frameon=False, fontsize=8)
    title = f"{label_text(video.name, 50)}   {len(shown)} of {len(class_names)} classes and their probability"
    figure.text(left, 1 - 0.15 / height_in, title, fontsize=8, va="center")
    _draw_thumbnails(figure, video, duration_s)
    save_figure(figure, path)


def _draw_thumbnails(figure: Figure, video: Path, duration_s: float) -> None:
    """Draw the frames nearest to the centers of equal parts of the file, each above its part."""
    left, width = _MARGIN_IN / _WIDTH_IN, (1 - 2 * _MARGIN_IN / _WIDTH_IN) / NUM_THUMBNAILS
    bottom, height = 1 - (_TOP_IN - 0.05) / figure.get_figheight(), 0.75 / figure.get_figheight()
    with suppress(UnreadableVideo), open_video(video) as reader:
        times_s = (np.arange(NUM_THUMBNAILS) + 0.5) * duration_s / NUM_THUMBNAILS
        numbers, box = np.abs(reader.times_s[:, None] - times_s).argmin(axis=0), Box(0, 0, reader.height, reader.width)
        frames = reader.read([View(numbers, box)], (90, max(1, 90 * box.width // box.height)), "rgb")[0]
        for place, frame in enumerate(frames):
            axes = figure.add_axes((left + (place + 0.01) * width, bottom, 0.98 * width, height))
            axes.imshow(frame)
            axes.set_axis_off()
