"""What the variants of a study cost, measured side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from vidtl.benchmark.rounds import seconds_of
from vidtl.config import ExperimentConfig
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds, count_parameters
from vidtl.runtime.seeding import seed_torch


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


def measure_costs(
    experiments: Sequence[ExperimentConfig], num_classes: int, batch_size: int, rounds: int, device: torch.device
) -> list[Cost]:
    """The costs of all variants; their steps take turns, so that whatever disturbs the machine disturbs all alike."""
    models, batches = [], []
    for experiment in experiments:
        seed_torch(0)
        clip = experiment.clip
        model = build_model(experiment.model, clip, num_classes).train()
        _wake_head(model)
        models.append(model.to(device))
        batches.append(torch.randn(batch_size, clip.num_frames, 3, *clip.frame_size, device=device))
    seconds: list[list[float]] = [[] for _ in models]
    for turn in range(rounds + 1):  # the first one warms up
        for times, model, batch in zip(seconds, models, batches, strict=True):
            elapsed = seconds_of(lambda model=model, batch=batch: _step(model, batch), device)  # type: ignore[misc]
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
        )
        for model, count, times in zip(models, multiply_adds, seconds, strict=True)
    ]


def _wake_head(model: nn.Module) -> None:
    """Heads that start at 0 give gradients of 0, which a GPU multiplies faster than others."""
    for parameter in model.head.parameters():  # type: ignore[union-attr, operator]
        nn.init.normal_(parameter, std=0.02)


def _step(model: nn.Module, batch: Tensor) -> None:
    logits_BK = model(batch)
    F.cross_entropy(logits_BK, torch.zeros(len(batch), dtype=torch.long, device=batch.device)).backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
