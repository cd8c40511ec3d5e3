"""How long a run is, and the course of its learning rate."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length of the run and course of the learning rate, per optimizer step whatever the number of processes."""

    name: Literal["cosine", "constant"] = "cosine"
    """Shape after the warm-up: half a cosine down to `final_factor`, or flat."""
    epochs: float = 30.0
    """Length of the run in passes over the training split."""
    warmup_epochs: float = 2.5
    """The learning rate rises linearly from 0 over this part of the run."""
    final_factor: float = 0.0
    """Learning rate at the end, as a share of the peak."""

    def __post_init__(self) -> None:
        require(self.epochs > 0, "schedule.epochs", self.epochs, "more than 0")
        require(
            0 <= self.warmup_epochs <= self.epochs, "schedule.warmup_epochs", self.warmup_epochs, "0 to schedule.epochs"
        )
        require(0 <= self.final_factor <= 1, "schedule.final_factor", self.final_factor, "0 to 1")
