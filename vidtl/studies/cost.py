"""What the variants of a study cost, measured side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from vidtl.benchmark.rounds import seconds_of
from vidtl.config import ExperimentConfig
from vidtl.models.complexity import count_multiply_adds, count_parameters
from vidtl.studies.step import build_variant, random_clips, train_step
from vidtl.studies.step_memory import measure_step_memory


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one variant costs."""

    parameters: int
    multiply_adds: int
    """Of one clip's forward pass."""
    multiply_add_ratio: float
    """To the first variant."""
    time_ratio: float
    """Time of a training step (forward and backward pass, float32) to that of the first variant: median over rounds."""
    step_memory_bytes: int | None
    """At the peak of such a step; see `vidtl.studies.step_memory`."""


def measure_costs(
    experiments: Sequence[ExperimentConfig], num_classes: int, batch_size: int, rounds: int, device: torch.device
) -> list[Cost]:
    """The costs of all variants; their steps take turns, so that whatever disturbs the machine disturbs all alike."""
    memory = measure_step_memory(experiments, num_classes, batch_size, device)
    models = [build_variant(experiment, num_classes, device) for experiment in experiments]
    batches = [random_clips(experiment.clip, batch_size, device) for experiment in experiments]
    seconds: list[list[float]] = [[] for _ in models]
    for turn in range(rounds + 1):  # the first one warms up
        for times, model, batch in zip(seconds, models, batches, strict=True):
            elapsed = seconds_of(lambda model=model, batch=batch: train_step(model, batch), device)  # type: ignore[misc]
            if turn:
                times.append(elapsed)
    multiply_adds = [
        count_multiply_adds(model, experiment.clip) for model, experiment in zip(models, experiments, strict=True)
    ]
    return [
        Cost(
            parameters=count_parameters(model),
            multiply_adds=count,
            multiply_add_ratio=count / multiply_adds[0],
            time_ratio=median(mine / first for mine, first in zip(times, seconds[0], strict=True)),
            step_memory_bytes=peak,
        )
        for model, count, times, peak in zip(models, multiply_adds, seconds, memory, strict=True)
    ]
