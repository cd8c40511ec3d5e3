"""Models of the papers, built here: what they cost beside the printed figures, and whether they take a step."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import nn

from vidtl.config import OptimizerConfig
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds, count_parameters
from vidtl.models.published import PublishedModel
from vidtl.runtime.seeding import seed_torch
from vidtl.training.optimizer import build_optimizer

STEP_BATCH = 2
"""Clips in a step, noise with random labels."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step (AdamW, float32) of an untrained model."""

    loss: float
    """Cross-entropy before the step."""
    gradient_norm: float
    tensors: int
    """Parameters that are trained, as tensors."""
    tensors_with_gradient: int
    """Of them, those whose gradient is finite and not 0 everywhere."""
    finite: bool
    """Loss, gradients and, after the step, all weights."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row, counted here."""

    row: PublishedModel
    multiply_adds: int
    parameters: int
    """All of them, as the papers count, also those without gradient."""
    trainable_parameters: int
    step: Step | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as they are written to files; multiply-adds and parameters exact, published ones as printed."""
        row = self.row
        return {
            "source": row.source,
            "name": row.name,
            "clip": [row.clip.num_frames, *row.clip.frame_size],
            "multiply_adds": self.multiply_adds,
            "published_gmacs": row.gmacs,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "published_parameters_m": row.parameters_m,
            "note": row.note,
            "step": asdict(self.step) if self.step else None,
        }


def compare(row: PublishedModel, device: torch.device | None = None) -> Comparison:
    """Counts of a row's model, and, on a device, a step of it."""
    with torch.device("meta"):
        model = build_model(row.model, row.clip, row.num_classes)
    return Comparison(
        row=row,
        multiply_adds=count_multiply_adds(model, row.clip),
        parameters=count_parameters(model),
        trainable_parameters=count_parameters(model, trainable_only=True),
        step=take_step(row, device) if device else None,
    )


def take_step(row: PublishedModel, device: torch.device) -> Step:
    """A step from seed 0; the classifier does not start at 0, where nothing below it would have a gradient."""
    seed_torch(0)
    model = build_model(row.model, row.clip, row.num_classes)
    nn.init.normal_(model.classifier()[1].weight, std=0.02)
    model.to(device).train()
    optimizer = build_optimizer(model, OptimizerConfig(), device)
    clips = torch.randn(STEP_BATCH, row.clip.num_frames, 3, *row.clip.frame_size)
    targets = torch.randint(row.num_classes, (STEP_BATCH,))
    loss = F.cross_entropy(model(clips.to(device)), targets.to(device))
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    optimizer.step()
    return Step(
        loss=loss.item(),
        gradient_norm=norm.item(),
        tensors=len(trained),
        tensors_with_gradient=sum(bool(gradient.isfinite().all() and gradient.any()) for gradient in gradients),
        finite=all(tensor.isfinite().all() for tensor in (loss, norm, *model.parameters())),
    )
