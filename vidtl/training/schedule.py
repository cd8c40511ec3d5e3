"""The learning rate as a closed formula of the step: there is no scheduler to step, to save or to get out of sync."""

import math

from vidtl.config import ScheduleConfig


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, config: ScheduleConfig) -> float:
    """Share of the peak learning rate in optimizer step `step` (the first is 0) of `total_steps`.

    ViViT's rule (scenic, `compound_lr_scheduler`): min(1, step / warmup) x (1 + cos(pi x progress)) / 2, with
    progress the share of the steps after the warm-up that is done. Two differences: the cosine ends at `final_factor`
    rather than at 0, and progress stops at 1 where the original starts another period.
    """
    warm = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    if config.name == "constant":
        return warm
    progress = min(1.0, max(0, step - warmup_steps) / max(1, total_steps - warmup_steps))
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return warm * (config.final_factor + (1 - config.final_factor) * cosine)
