"""`state.json` of a checkpoint: the position of the run, from which every random number follows."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vidtl.errors import UserError
from vidtl.training.checkpoint import STATE


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Properties of the data that must not change within a run; None is unknown and not compared."""

    num_classes: int
    num_videos: int | None = None
    steps_per_epoch: int
    total_steps: int
    data_sha256: str | None = None
    """Hash of class names, video ids and labels, in order."""


@dataclass(frozen=True)
class Best:
    """Best evaluation during training."""

    metric: str
    value: float
    step: int


@dataclass(kw_only=True)
class TrainingState:
    """Progress of a run."""

    step: int = 0
    """Finished optimizer steps."""
    videos_asked: int = 0
    """Videos requested from the loader, substitutes included."""
    videos_unreadable: int = 0
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last line of `metrics.jsonl`."""
    best: Best | None = None
    evaluated_step: int = 0
    """Step of the last evaluation that `best` and `evaluations_since_best` include."""
    evaluations_since_best: int = 0
    nonfinite_steps: int = 0
    """Steps skipped because of a non-finite loss or gradient."""
    nonfinite_in_a_row: int = 0
    scaler: dict[str, Any] | None = None
    """fp16 only: the loss scale and its counters."""

    def add_evaluation(self, step: int, metric: str, metrics: Mapping[str, float | None]) -> None:
        """Update the best evaluation with that of `step`; one that was added before changes nothing."""
        if step <= self.evaluated_step:
            return
        value = metrics.get(metric)
        self.evaluated_step = step
        if value is not None and math.isfinite(value) and (self.best is None or value > self.best.value):
            self.best, self.evaluations_since_best = Best(metric, value, step), 0
        else:
            self.evaluations_since_best += 1


def write_state(directory: Path, state: TrainingState, facts: RunFacts, about: dict[str, Any]) -> None:
    """Write `state.json`; `about` adds information for people (seed, epoch, processes)."""
    content = {**asdict(state), "facts": asdict(facts), "about": about}
    (directory / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_state(directory: Path, facts: RunFacts) -> TrainingState:
    """Read `state.json` of a verified checkpoint.

    Raises:
        UserError: the run had other data (classes, videos or labels), or another version of vidtl wrote the file.
    """
    content = json.loads((directory / STATE).read_text(encoding="utf-8"))
    try:
        recorded = RunFacts(**content["facts"])
        state = TrainingState(**{each.name: content[each.name] for each in fields(TrainingState)})
        state.best = Best(**content["best"]) if content["best"] else None
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory / STATE} was written by another version of vidtl: {error}") from error
    for name in (each.name for each in fields(RunFacts)):
        before, now = getattr(recorded, name), getattr(facts, name)
        if before not in (None, now):
            raise UserError(
                f"checkpoint {directory} has other data: {name} is {before!r} there and {now!r} here; restore the "
                "classes, videos, labels and their order, or give another output directory"
            )
    return state
