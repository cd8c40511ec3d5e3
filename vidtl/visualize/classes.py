"""Figures of an evaluation of K classes: confusion matrix, average precision of each class, reliability diagram."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vidtl.metrics.outcomes import Calibration, Outcomes
from vidtl.runtime.files import printable, replacing
from vidtl.visualize import BLUE, VERMILION, bare, draw_label, label_text, new_figure, save_figure

MAX_CLASSES, MAX_COUNTS, MAX_BARS = 1000, 25, 160
"""Classes of the largest confusion matrix, of the largest with counts in its cells, and of the largest bar chart."""

CELL_PX = 12  # of a large matrix, which leaves its labels legible; a matrix with counts has cells three times as wide


def draw_confusion(counts: NDArray[np.int64], class_names: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix as a PNG that grows with the number of classes, so that names are legible.

    `counts` is int64 [K, K + 1] of (true class, predicted class); the last column counts unreadable videos. Drawn with
    Pillow: matplotlib takes most of a minute for the labels of 400 classes.
    """
    videos = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, videos, out=np.zeros(counts.shape), where=videos > 0)
    errors = counts.sum(axis=1) - np.diagonal(counts)
    chosen = np.sort(np.argsort(-errors, kind="stable")[:MAX_CLASSES])
    names = [class_names[i] for i in chosen]
    columns, places = (names, chosen) if not counts[:, -1].any() else ([*names, "unreadable"], [*chosen, len(counts)])
    counts, shares = counts[np.ix_(chosen, places)], shares[np.ix_(chosen, places)]
    note = f"\nthe {len(names)} of {len(class_names)} classes with most errors" if len(names) < len(errors) else ""
    text = f"{printable(title, 90)}{note}\nrows: true class; columns: predicted; color: share of the true class"
    has_counts = len(names) <= MAX_COUNTS
    cell_px = 3 * CELL_PX if has_counts else CELL_PX
    rows, below = _labels(names, cell_px), _labels(columns, cell_px).rotate(90, expand=True)
    left, top, blank = rows.width, 60, ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(draw_label(blank, (8, 0), line, "black", 13) for line in text.split("\n"))
    pixels = (255 * colormaps["Blues"](shares)[..., :3]).round().astype(np.uint8).repeat(cell_px, 0).repeat(cell_px, 1)
    size = max(left + pixels.shape[1], round(width)) + CELL_PX, top + pixels.shape[0] + below.height
    page = Image.new("RGB", size, "white")
    page.paste(Image.fromarray(pixels), (left, top))
    page.paste(rows, (0, top))
    page.paste(below, (left, top + pixels.shape[0]))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(text.split("\n")):
        draw_label(draw, (8, 8 + 16 * number), line, "black", 13)
    for (row, column), count in np.ndenumerate(counts):
        if count and has_counts:
            place = left + (column + 0.5) * cell_px, top + (row + 0.5) * cell_px
            draw.text(place, f"{count}", "white" if shares[row, column] > 0.55 else "black", anchor="mm", font_size=13)
    with replacing(path) as temporary:
        page.save(temporary, format="PNG")


def _labels(names: Sequence[str], cell_px: int) -> Image.Image:
    texts, blank = [printable(name, 36) for name in names], ImageDraw.Draw(Image.new("RGB", (1, 1)))
    size_px = min(cell_px - 1, 13)
    widths = [draw_label(blank, (0, 0), text, "black", size_px) for text in texts]
    image = Image.new("RGB", (8 + round(max(widths)), cell_px * len(names)), "white")
    draw = ImageDraw.Draw(image)
    for number, (text, width) in enumerate(zip(texts, widths, strict=True)):
        place = image.width - 4 - width, cell_px * (number + 0.5) - 0.6 * size_px
        draw_label(draw, place, text, "black", size_px)
    return image


def draw_average_precision(outcomes: Outcomes, class_names: Sequence[str], path: Path, title: str) -> None:
    """Draw one bar per class as a PNG, best first; above `MAX_BARS` classes, the best and the worst `MAX_BARS // 2`.

    Classes without positives come last; a tick marks the share of positives, the level of equal scores.
    """
    positives = outcomes.targets.sum(axis=0)
    order, note = np.argsort(-np.nan_to_num(outcomes.per_class, nan=-1.0), kind="stable"), ""
    if len(order) > MAX_BARS:
        note = f"\nthe {MAX_BARS // 2} best and worst of {len(order)} classes"
        order = np.concatenate([order[: MAX_BARS // 2], order[-(MAX_BARS // 2) :]])
    values, places = outcomes.per_class[order], np.arange(len(order))
    figure = new_figure(7.5, 1.4 + 0.19 * len(order))
    axes = figure.add_subplot()
    axes.barh(places, np.nan_to_num(values), color=BLUE, height=0.7, label="average precision")
    rates, label = positives[order] / max(len(outcomes), 1), "share of videos (equal scores)"
    axes.plot(rates, places, "|", color=VERMILION, markersize=8, markeredgewidth=2, label=label)
    for place, value in zip(places, values, strict=True):
        text = "no videos" if np.isnan(value) else f"{value:.3f}"
        axes.text(1.01, float(place), text, va="center", fontsize=7, color="0.35")
    axes.set_yticks(places, [f"{label_text(class_names[i])} ({positives[i]})" for i in order])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.4, -0.6), xlabel="average precision; number of videos in brackets")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(label_text(title, 90) + note, fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_reliability(found: Calibration, path: Path, title: str) -> None:
    """Draw the reliability diagram: accuracy over mean probability, and below it the number of predictions."""
    figure = new_figure(4.5, 5.5)
    upper, lower = map(bare, figure.subplots(2, 1, sharex=True, height_ratios=[4, 1]))
    filled = found.counts > 0
    upper.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1)
    upper.plot(found.confidences[filled], found.accuracies[filled], "o-", color=BLUE, markersize=4)
    upper.vlines(found.confidences[filled], found.confidences[filled], found.accuracies[filled], color=VERMILION)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"{label_text(title, 60)}\nexpected calibration error {found.ece:.4f}", fontsize=9)
    lower.bar(found.edges[:-1], found.counts, width=np.diff(found.edges), align="edge", color=BLUE, edgecolor="white")
    lower.set(xlabel="predicted probability", ylabel="predictions")
    if found.counts.max(initial=0) > 1000:
        lower.set_yscale("log")
    save_figure(figure, path)
