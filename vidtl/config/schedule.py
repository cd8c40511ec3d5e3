"""Length of a run and its learning rate schedule."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices
from vidtl.config.length import parse_length


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length of the run and learning rate per optimizer step, independent of the number of processes.

    Lengths are in epochs, optimizer steps or samples: `30 epochs`, `5000 steps`, `2_000_000 samples`.
    """

    name: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """Decay after the warm-up: cosine or linear to `final_factor`, steps at `milestones`, or none."""
    length: str = "30 epochs"
    """Length of the run."""
    warmup: str = "2.5 epochs"
    """Length of the linear warm-up at the start of the run."""
    warmup_start: float = 0.0
    """Learning rate at the start of the warm-up."""
    cooldown: str = "0 epochs"
    """Length of the last part of the run, at the final learning rate."""
    final_factor: float = 0.0
    """`cosine`, `linear`: final learning rate as a fraction of the peak."""
    milestones: tuple[str, ...] = ()
    """`step`: points of decay by `step_factor`, such as ['20 epochs', '25 epochs']."""
    step_factor: float = 0.1
    """`step`: factor of the decay at each milestone."""

    def total_steps(self, steps_per_epoch: int, samples_per_epoch: int) -> int:
        """Return the number of optimizer steps of the run, at least 1."""
        return max(1, parse_length(self.length, "schedule.length").to_steps(steps_per_epoch, samples_per_epoch))

    def __post_init__(self) -> None:
        require_choices(self, "schedule")
        require(parse_length(self.length, "schedule.length").number > 0, "schedule.length", self.length, "more than 0")
        for name in ("warmup", "cooldown"):
            parse_length(getattr(self, name), f"schedule.{name}")
        for milestone in self.milestones:
            parse_length(milestone, "schedule.milestones")
        require(
            bool(self.milestones) == (self.name == "step"),
            "schedule.milestones",
            self.milestones,
            "one or more with schedule.name step, none with the others",
        )
        require(self.warmup_start >= 0, "schedule.warmup_start", self.warmup_start, "0 or more")
        require(0 <= self.final_factor <= 1, "schedule.final_factor", self.final_factor, "0 to 1")
        require(0 < self.step_factor <= 1, "schedule.step_factor", self.step_factor, "more than 0, at most 1")
