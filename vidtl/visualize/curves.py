"""Loss, learning rate and evaluation metrics of a run over its steps, from `metrics.jsonl`."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vidtl.errors import UserError
from vidtl.visualize import COLOURS, label_text, new_figure, save_figure

METRICS = ("top1", "top5", "mean_class_accuracy", "mAP", "mAP_charades")
"""Evaluation metrics that are drawn, where a line has them."""

SMOOTHED_FROM = 60
"""Training lines from which on a running mean is drawn over the raw loss."""

Line = Mapping[str, object]


def draw_curves(metrics_path: Path, path: Path, chance: Mapping[str, float] | None = None) -> None:
    """Draw the curves of one run as a PNG, also of a run that has only just begun.

    Args:
        metrics_path: `metrics.jsonl`. Training lines have `step`, `epoch`, `loss` and `learning_rate`; evaluation lines
            `step`, `epoch`, `split` and metrics. Steps that were run again after a restart count by their last line.
        path: the PNG to write.
        chance: level of random scores by metric name, drawn dashed.

    Raises:
        UserError: the file cannot be read, or a line other than an unfinished last one is no JSON object with a step.
    """
    lines = read_lines(metrics_path)
    training = _latest([line for line in lines if "loss" in line])
    evaluation = _latest([line for line in lines if "split" in line])
    figure = new_figure(7.5, 7.5)
    loss_axes, rate_axes, metric_axes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.4, 3])
    _draw_loss(loss_axes, training)
    steps, rates = _series(training, "learning_rate")
    rate_axes.plot(steps, rates, color=COLOURS[0], marker="o" if len(steps) == 1 else None)
    rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _draw_metrics(metric_axes, evaluation, chance or {})
    for axes, name in ((loss_axes, "training loss"), (rate_axes, "learning rate"), (metric_axes, "evaluation")):
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    metric_axes.set_xlabel("optimizer step")
    _add_epochs(loss_axes, [*training, *evaluation])
    figure.align_ylabels()
    save_figure(figure, path)


def read_lines(metrics_path: Path) -> list[Line]:
    """Lines of `metrics.jsonl`, less a last one that a killed run left unfinished; UserError as in `draw_curves`."""
    try:
        text = metrics_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{metrics_path} cannot be read: {error}") from None
    lines: list[Line] = []
    *whole, unfinished = text.split("\n")
    for number, content in enumerate(whole, start=1):
        if not content.strip():
            continue
        line = _parsed(content)
        if line is None:
            raise UserError(f"{metrics_path}:{number} is no JSON object with a number 'step': {content[:60]!r}")
        lines.append(line)
    last = _parsed(unfinished)
    return [*lines, last] if last is not None else lines


def _parsed(content: str) -> Line | None:
    try:
        line = json.loads(content)
    except ValueError:
        return None
    return line if isinstance(line, dict) and _number(line.get("step")) is not None else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _latest(lines: Sequence[Line]) -> list[Line]:
    """One line per (step, split) in rising order; a resumed run repeats steps, and its own count."""
    by_step = {(_number(line["step"]) or 0.0, str(line.get("split", ""))): line for line in lines}
    return [by_step[key] for key in sorted(by_step)]


def _series(lines: Sequence[Line], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one quantity; lines without a number leave a gap."""
    points = [(_number(line["step"]), _number(line.get(name))) for line in lines if name in line]
    return [step or 0.0 for step, _ in points], [math.nan if value is None else value for _, value in points]


def _draw_loss(axes: Axes, training: Sequence[Line]) -> None:
    steps, losses = _series(training, "loss")
    marker = "o" if len(steps) == 1 else None
    if len(steps) < SMOOTHED_FROM:
        axes.plot(steps, losses, color=COLOURS[0], marker=marker)
        return
    axes.plot(steps, losses, color=COLOURS[0], alpha=0.3, linewidth=0.8, label="each line")
    half = len(steps) // 40
    axes.plot(steps, running_mean(losses, half), color=COLOURS[0], label=f"mean of {2 * half + 1} lines")
    axes.legend(frameon=False, fontsize=8)


def running_mean(values: Sequence[float], half: int) -> NDArray[np.float64]:
    """Mean of the finite ones among each value and `half` values on either side; NaN where there are none."""
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    window = np.ones(2 * half + 1)  # sums of their own: differences of running sums would lose what is small
    sums = np.convolve(np.where(finite, array, 0), window)[half : half + len(array)]
    counts = np.convolve(finite, window)[half : half + len(array)]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _draw_metrics(axes: Axes, evaluation: Sequence[Line], chance: Mapping[str, float]) -> None:
    """One colour per metric, one line style per split; chance is dashed in the metric's colour."""
    splits = sorted({str(line["split"]) for line in evaluation})
    shown = [name for name in METRICS if any(_number(line.get(name)) is not None for line in evaluation)]
    for colour, name in zip(COLOURS, shown, strict=False):
        for split, style in zip(splits, cycle(("-", ":", "-.")), strict=False):
            steps, values = _series([line for line in evaluation if line["split"] == split], name)
            label = label_text(f"{name}, {split}")
            axes.plot(steps, values, style, color=colour, marker="o", markersize=3.5, label=label)
        level = chance.get(name)
        if level is not None and math.isfinite(level):
            axes.axhline(
                level, color=colour, linestyle="--", linewidth=1, alpha=0.8, label=f"{name}, chance {level:.3f}"
            )
    axes.set_ylim(0, 1)
    if shown:
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    else:
        axes.text(0.5, 0.5, "no evaluation yet", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _add_epochs(axes: Axes, lines: Sequence[Line]) -> None:
    """A second axis above that counts epochs, which are proportional to steps."""
    ratios = [(_number(line.get("epoch")) or 0.0) / step for line in lines if (step := _number(line["step"]))]
    ratio = ratios[-1] if ratios else 0.0
    if ratio > 0:

        def to_epoch(step: Any) -> Any:
            return step * ratio

        def to_step(epoch: Any) -> Any:
            return epoch / ratio

        axes.secondary_xaxis("top", functions=(to_epoch, to_step)).set_xlabel("epoch")
