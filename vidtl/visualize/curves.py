"""Loss, learning rate and evaluation metrics of a run over its steps, from `metrics.jsonl`."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vidtl.metrics import METRICS
from vidtl.runtime.logging import read_json_lines
from vidtl.visualize import COLORS, bare, label_text, new_figure, save_figure

SMOOTHED_FROM = 60
"""Number of training lines from which a running mean is drawn over the raw loss."""

Line = Mapping[str, object]


def draw_curves(metrics_path: Path, path: Path, chance: Mapping[str, float] | None = None) -> None:
    """Draw `metrics.jsonl`, the last line of each step, as a PNG; `chance`, levels by metric name, is dashed."""
    lines = list(read_json_lines(metrics_path))
    training = _latest([line for line in lines if "split" not in line])
    evaluation = _latest([line for line in lines if "split" in line])
    figure = new_figure(7.5, 7.5)
    loss_axes, rate_axes, metric_axes = map(bare, figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.4, 3]))
    _draw_loss(loss_axes, training, evaluation)
    steps, rates = _series(training, "learning_rate")
    rate_axes.plot(steps, rates, color=COLORS[0], marker="o" if len(steps) == 1 else None)
    rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _draw_metrics(metric_axes, training, evaluation, chance or {})
    for axes, name in ((loss_axes, "loss"), (rate_axes, "learning rate"), (metric_axes, "metrics")):
        axes.set_ylabel(name)
    metric_axes.set_xlabel("optimizer step")
    timed = [line for line in (*training, *evaluation) if line.get("epoch")]
    if timed and (ratio := _number(timed[-1]["epoch"]) / _number(timed[-1]["step"])) > 0:  # of epochs to steps
        functions = (lambda step: step * ratio, lambda epoch: epoch / ratio)
        loss_axes.secondary_xaxis("top", functions=functions).set_xlabel("epoch")
    figure.align_ylabels()
    save_figure(figure, path)


def _number(value: object) -> float:
    """Convert a number of `metrics.jsonl`; NaN for null."""
    return float(value) if isinstance(value, int | float) else math.nan


def _latest(lines: Sequence[Line]) -> list[Line]:
    """Keep the last line of each (step, split), in rising order."""
    by_step = {(_number(line["step"]), str(line.get("split", ""))): line for line in lines}
    return [by_step[key] for key in sorted(by_step)]


def _series(lines: Sequence[Line], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values of one quantity; NaN for null, which leaves a gap."""
    present = [line for line in lines if name in line]
    return [_number(line["step"]) for line in present], [_number(line[name]) for line in present]


def _draw_loss(axes: Axes, training: Sequence[Line], evaluation: Sequence[Line]) -> None:
    steps, losses = _series(training, "loss")
    if len(steps) < SMOOTHED_FROM:
        axes.plot(steps, losses, color=COLORS[0], marker="o" if len(steps) == 1 else None, label="training")
    else:
        axes.plot(steps, losses, color=COLORS[0], alpha=0.3, linewidth=0.8, label="training, each line")
        half = len(steps) // 40
        axes.plot(steps, running_mean(losses, half), color=COLORS[0], label=f"training, mean of {2 * half + 1} lines")
    for split, color in zip(sorted({str(line["split"]) for line in evaluation}), cycle(COLORS[1:]), strict=False):
        steps, losses = _series([line for line in evaluation if line["split"] == split], "loss")
        axes.plot(steps, losses, color=color, marker="o", markersize=3.5, label=label_text(split))
    axes.legend(frameon=False, fontsize=8)


def running_mean(values: Sequence[float], half: int) -> NDArray[np.float64]:
    """Average the finite values among each value and its `half` neighbors per side; NaN where there are none."""
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    window = np.ones(2 * half + 1)  # differences of running sums would lose small values
    sums = np.convolve(np.where(finite, array, 0), window)[half : half + len(array)]
    counts = np.convolve(finite, window)[half : half + len(array)]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _draw_metrics(
    axes: Axes, training: Sequence[Line], evaluation: Sequence[Line], chance: Mapping[str, float]
) -> None:
    """Draw one color per metric, one line style per split; chance is dashed in the metric's color."""
    splits = sorted({str(line["split"]) for line in evaluation})
    steps, values = _series(training, "accuracy")
    if steps:
        axes.plot(steps, values, color=COLORS[0], alpha=0.3, linewidth=0.8, label="Accuracy, training")
    found = {name for line in evaluation for name, value in line.items() if value is not None}
    shown = [metric for metric in METRICS.values() if metric.is_drawn and metric.name in found]
    for color, metric in zip(cycle(COLORS), shown, strict=False):
        for split, style in zip(splits, cycle(("-", ":", "-.")), strict=False):
            steps, values = _series([line for line in evaluation if line["split"] == split], metric.name)
            label = label_text(f"{metric.title}, {split}")
            axes.plot(steps, values, style, color=color, marker="o", markersize=3.5, label=label)
        level = chance.get(metric.name, math.nan)
        if math.isfinite(level):
            label = f"{metric.title}, chance {level:.3f}"
            axes.axhline(level, color=color, linestyle="--", linewidth=1, alpha=0.8, label=label)
    axes.set_ylim(0, 1)
    if shown:
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    else:
        axes.text(0.5, 0.5, "no evaluation yet", transform=axes.transAxes, ha="center", va="center", color="0.5")


def draw_token_curves(curves: Mapping[str, Sequence[tuple[float, float, str]]], metric: str, path: Path) -> None:
    """Draw a metric over multiply-adds; `curves` has their points by name, each cost, value and a text beside it."""
    figure = new_figure(6.0, 4.0)
    axes = bare(figure.subplots())
    for (name, points), color in zip(curves.items(), cycle(COLORS), strict=False):
        axes.plot([p[0] / 1e6 for p in points], [p[1] for p in points], color=color, marker="o", label=label_text(name))
        for cost, value, text in points:
            axes.annotate(text, (cost / 1e6, value), (5, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel("multiply-adds per clip in millions")
    axes.set_ylabel(METRICS[metric].title)
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
