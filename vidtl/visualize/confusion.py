"""Which classes are taken for which, and how well each class is ranked.

Axes: K classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vidtl.visualize import BLUE, VERMILION, label_text, new_figure, save_figure

MAX_CLASSES = 60
"""More rows than this are not legible on one page."""

MAX_COUNTS = 25
"""Counts are written into the cells up to this many classes."""

MAX_BARS = 160


def draw_confusion(counts: NDArray[np.int64], class_names: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix as a PNG.

    Args:
        counts: int64 [K, K + 1] of (true class, predicted class); the last column counts unreadable videos and is shown
            where there are any. Above `MAX_CLASSES` classes, the `MAX_CLASSES // 2` with most errors are shown and the
            other predictions are summed up in one column.
        class_names: K names.
        path: the PNG to write.
        title: one line above the matrix.
    """
    cells, rows, columns, note = _shown_cells(np.asarray(counts), class_names)
    row_labels, column_labels = [label_text(name) for name in rows], [label_text(name) for name in columns]
    cell, margin = (
        0.3,
        0.075 * max(map(len, [*row_labels, *column_labels])),
    )  # inches; a letter of 8 points is 0.075 wide
    figure = new_figure(max(4.0, margin + 1.6 + cell * len(columns)), margin + max(1.2, 1 + cell * len(rows)))
    figure.set_layout_engine("compressed")
    axes = figure.add_subplot()
    videos = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, videos, out=np.zeros(cells.shape), where=videos > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    if len(rows) <= MAX_COUNTS:
        _write_counts(axes, cells, shares)
    axes.set_xticks(range(len(columns)), column_labels, rotation=90)
    axes.set_yticks(range(len(rows)), row_labels)
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(label_text(title, 90) + (f"\n{note}" if note else ""), fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.04, pad=0.02)
    save_figure(figure, path)


def _shown_cells(
    counts: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[NDArray[np.int64], list[str], list[str], str]:
    """Cells to draw, their row and column names, and what was left out."""
    num_classes = len(class_names)
    rows, columns, note = list(class_names), list(class_names), ""
    cells, unreadable = counts[:, :num_classes], counts[:, num_classes:]
    if num_classes > MAX_CLASSES:
        errors = counts.sum(axis=1) - np.diagonal(counts)
        chosen = np.sort(np.argsort(-errors, kind="stable")[: MAX_CLASSES // 2])
        others = np.delete(cells, chosen, axis=1).sum(axis=1, keepdims=True)
        cells = np.concatenate([cells[:, chosen], others], axis=1)[chosen]
        rows = [class_names[i] for i in chosen]
        columns = [*rows, "all other classes"]
        unreadable = unreadable[chosen]
        note = f"the {len(chosen)} of {num_classes} classes with most errors"
    if unreadable.any():
        cells = np.concatenate([cells, unreadable], axis=1)
        columns = [*columns, "unreadable"]
    return cells, rows, columns, note


def _write_counts(axes: Axes, cells: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(cells):
        if count:
            colour = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=7)


def draw_average_precision(
    average_precisions: NDArray[np.float64],
    positives: NDArray[np.int64],
    num_videos: int,
    class_names: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw one bar per class, best first, as a PNG.

    Args:
        average_precisions: [K]; NaN for classes without positives, which are listed below the others without a bar.
        positives: [K] videos of each class; a tick marks their share of `num_videos`, the level of equal scores.
        num_videos: all videos.
        class_names: K names. Above `MAX_BARS` classes, the best and the worst `MAX_BARS // 2` are shown.
        path: the PNG to write.
        title: one line above the bars.
    """
    order = np.argsort(-np.nan_to_num(np.asarray(average_precisions), nan=-1.0), kind="stable")
    note = ""
    if len(order) > MAX_BARS:
        note = f"the {MAX_BARS // 2} best and worst of {len(order)} classes"
        order = np.concatenate([order[: MAX_BARS // 2], order[-(MAX_BARS // 2) :]])
    figure = new_figure(7.5, 1.4 + 0.19 * len(order))
    _draw_bars(figure, average_precisions[order], positives[order], num_videos, [class_names[i] for i in order])
    figure.axes[0].set_title(label_text(title, 90) + (f"\n{note}" if note else ""), fontsize=10)
    save_figure(figure, path)


def _draw_bars(
    figure: Figure,
    average_precisions: NDArray[np.float64],
    positives: NDArray[np.int64],
    num_videos: int,
    names: Sequence[str],
) -> None:
    axes = figure.add_subplot()
    places = np.arange(len(names))
    axes.barh(places, np.nan_to_num(average_precisions), color=BLUE, height=0.7, label="average precision")
    rates = positives / max(num_videos, 1)
    axes.plot(
        rates, places, "|", color=VERMILION, markersize=8, markeredgewidth=2, label="share of videos (equal scores)"
    )
    for place, value in zip(places, average_precisions, strict=True):
        text = "no videos" if np.isnan(value) else f"{value:.3f}"
        axes.text(1.01, float(place), text, va="center", fontsize=7, color="0.35")
    labels = [f"{label_text(name)} ({count})" for name, count in zip(names, positives, strict=True)]
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision; number of videos in brackets")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
