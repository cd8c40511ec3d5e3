"""Best evaluation of a run: its metric, its mark in `metrics.jsonl`, and the choice of a checkpoint by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidtl.errors import UserError, did_you_mean
from vidtl.metrics.table import METRICS, Metric, metrics_of
from vidtl.runtime.logging import read_json_lines


@dataclass(frozen=True)
class Best:
    """Best evaluation during training."""

    metric: str
    value: float
    step: int

    def __str__(self) -> str:
        return METRICS[self.metric].brief(self.value)


def find_best_metric(name: str, multi_label: bool, num_classes: int) -> Metric:
    """Return the metric named in `training.best_metric`; '' is the first one for the labels.

    UserError for an unknown metric, or one that does not apply to the labels or the number of classes.
    """
    fitting = {metric.name: metric for metric in metrics_of(multi_label, num_classes)}
    if name and name not in fitting:
        labels = f"{'multi' if multi_label else 'single'}-label data of {num_classes} classes"
        raise UserError(f"training.best_metric is {name!r}; with {labels}, {did_you_mean(name, fitting)}")
    return fitting[name] if name else next(iter(fitting.values()))


def read_best(metrics_file: Path) -> Best | None:
    """Return the last evaluation that `metrics.jsonl` marks as the best so far; None without one."""
    best = None
    for line in read_json_lines(metrics_file):
        metric = str(line.get("best"))
        value = line.get(metric)
        if metric in METRICS and isinstance(value, float | int) and math.isfinite(value):
            best = Best(metric, value, line["step"])
    return best


def choose_step(wanted: str, steps: Sequence[int], metrics_file: Path) -> tuple[int | None, str]:
    """Choose among the checkpoints of a run, given their steps: the step, None for the newest valid one, and a remark.

    `wanted` is `best`, `last`, a step, or '' for the best one where the run kept it, else the last. UserError for none.
    """
    best = read_best(metrics_file)
    kept = best.step if best and best.step in steps else None
    if wanted == "last" or (wanted == "" and kept is None):
        return None, "last"
    number = kept if wanted in ("", "best") else int(wanted) if wanted.isdecimal() else None
    if number in steps:
        return number, f"best {best}" if number == kept else ""
    allowed = did_you_mean(wanted, ["last", *["best"] * bool(kept), *map(str, steps)])
    if number is not None and steps:
        nearest = sorted(steps, key=lambda step: abs(step - number))[:3]
        allowed = f"nearest: {', '.join(map(str, nearest))}"
    raise UserError(f"--step is {wanted!r}, and the run has no such checkpoint; {allowed}")
