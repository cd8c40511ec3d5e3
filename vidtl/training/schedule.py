"""Learning rate as a closed formula of the step: no scheduler state to save."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from vidtl.config import OptimizerConfig, ScheduleConfig
from vidtl.config.training import parse_length
from vidtl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Learning rate of each optimizer step (the first is 0), all lengths in steps.

    ViViT's rule (scenic, `compound_lr_scheduler`) for the cosine: peak x min(1, step / warmup)
    x (1 + cos(pi x progress)) / 2, with progress from 0 to 1 between warm-up and cool-down. Differences: the warm-up
    may start above 0, the cosine may end above 0, and progress stops at 1, where the original starts another period.
    """

    config: ScheduleConfig
    peak: float
    total_steps: int
    warmup_steps: int
    cooldown_steps: int
    milestones: tuple[int, ...]

    def __call__(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""
        if step < self.warmup_steps:
            start = self.config.warmup_start
            return start + (self.peak - start) * (step / self.warmup_steps)
        return self.peak * self._factor(step)

    def _factor(self, step: int) -> float:
        final = self.config.final_factor
        falling_steps = self.total_steps - self.warmup_steps - self.cooldown_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, falling_steps))
        if self.config.name == "cosine":
            return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        if self.config.name == "linear":
            return final + (1 - final) * (1 - progress)
        # `constant` has no milestones
        return self.config.step_factor ** bisect_right(self.milestones, step)


def peak_learning_rate(optimizer: OptimizerConfig, batch_size: int) -> float:
    """Scale `optimizer.learning_rate` to the batch size over all processes where `optimizer.reference_batch` is set."""
    scale = batch_size / optimizer.reference_batch if optimizer.reference_batch else 1.0
    return optimizer.learning_rate * scale


def learning_rate_of(
    schedule: ScheduleConfig, peak: float, steps_per_epoch: int, samples_per_epoch: int
) -> LearningRate:
    """Resolve a schedule for data of this size.

    Raises:
        UserError: warm-up and cool-down are longer than the run, or a milestone lies outside of it.
    """

    def steps(text: str, name: str) -> int:
        return parse_length(text, f"schedule.{name}").to_steps(steps_per_epoch, samples_per_epoch)

    total = schedule.total_steps(steps_per_epoch, samples_per_epoch)
    warmup, cooldown = steps(schedule.warmup, "warmup"), steps(schedule.cooldown, "cooldown")
    for name, taken in (("warmup", warmup), ("cooldown", warmup + cooldown)):
        if taken > total:
            raise UserError(
                f"schedule.{name} is {getattr(schedule, name)!r}; allowed: what fits into schedule.length, "
                f"{schedule.length!r} ({total} steps)"
            )
    milestones = [steps(milestone, "milestones") for milestone in schedule.milestones]
    for text, milestone in zip(schedule.milestones, milestones, strict=True):
        if not 0 < milestone < total:
            raise UserError(
                f"schedule.milestones has {text!r}, step {milestone}; allowed: steps within the run's {total}"
            )
    return LearningRate(
        config=schedule,
        peak=peak,
        total_steps=total,
        warmup_steps=warmup,
        cooldown_steps=cooldown,
        milestones=tuple(sorted(milestones)),
    )
