"""`state.json` of a checkpoint: where the run stands. Every random number follows from it, so none is stored."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vidtl.errors import UserError
from vidtl.training.checkpoint import STATE


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What must be the same in all parts of a run, beyond its configuration; None is not known and not compared."""

    num_classes: int
    num_videos: int | None = None
    steps_per_epoch: int
    total_steps: int
    data_sha256: str | None = None
    """Of class names, ids of videos and labels, in their order."""


@dataclass(frozen=True)
class Best:
    """The best of the periodic evaluations so far."""

    metric: str
    value: float
    step: int


@dataclass(kw_only=True)
class TrainingState:
    """How far a run has come."""

    step: int = 0
    """Finished optimizer steps."""
    videos_asked: int = 0
    """Videos that the loader was asked for, substitutes included."""
    videos_unreadable: int = 0
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last line of `metrics.jsonl`."""
    best: Best | None = None
    evaluated_step: int = 0
    """Step of the last evaluation that `best` and `evaluations_since_best` know of."""
    evaluations_since_best: int = 0
    nonfinite_steps: int = 0
    """Steps left out because their loss or gradient was not finite."""
    nonfinite_in_a_row: int = 0
    scaler: dict[str, Any] | None = None
    """fp16 only: the loss scale and its counters."""


def write_state(directory: Path, state: TrainingState, facts: RunFacts, about: dict[str, Any]) -> None:
    """Write `state.json`; `about` adds what only people read (seed, epoch, processes)."""
    content = {**asdict(state), "facts": asdict(facts), "about": about}
    (directory / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_state(directory: Path, facts: RunFacts) -> TrainingState:
    """Read `state.json` of a checkpoint whose manifest was verified.

    Raises:
        UserError: the run that wrote it had other data: other classes, videos or labels, or more or fewer of them.
    """
    content = json.loads((directory / STATE).read_text(encoding="utf-8"))
    recorded = RunFacts(**content["facts"])
    for name in (f.name for f in fields(RunFacts)):
        before, now = getattr(recorded, name), getattr(facts, name)
        if before not in (None, now):
            differs = f"{name} is {before}, and here it is {now}"
            if name == "data_sha256":
                differs = "classes, videos or labels are not those here, or in another order"
            raise UserError(
                f"checkpoint {directory} is of a run whose {differs}: "
                "the data set has changed; give another output directory"
            )
    # What an older version did not count yet begins at 0.
    state = TrainingState(**{f.name: content[f.name] for f in fields(TrainingState) if f.name in content})
    state.best = Best(**content["best"]) if content["best"] else None
    return state
