"""The training step that variants are compared by: forward and backward pass in float32, without optimizer."""

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from vidtl.config import ClipConfig, ExperimentConfig
from vidtl.models import VideoModel, build_model
from vidtl.runtime.seeding import seed_torch


def build_variant(experiment: ExperimentConfig, num_classes: int, device: torch.device) -> VideoModel:
    """The model in training mode, with a head that does not start at 0, where gradients would be 0.

    A GPU multiplies zeros faster than other numbers.
    """
    seed_torch(0)
    model = build_model(experiment.model, experiment.clip, num_classes).train()
    nn.init.normal_(model.classifier()[1].weight, std=0.02)
    return model.to(device)


def random_clips(clip: ClipConfig, count: int, device: torch.device) -> Tensor:
    """Noise as clips `[B, T, C, H, W]`."""
    return torch.randn(count, clip.num_frames, 3, *clip.frame_size, device=device)


def train_step(model: nn.Module, clips_BTCHW: Tensor) -> None:
    """Forward and backward pass; the gradients are thrown away."""
    logits_BK = model(clips_BTCHW)
    targets_B = torch.zeros(len(clips_BTCHW), dtype=torch.long, device=clips_BTCHW.device)
    F.cross_entropy(logits_BK, targets_B).backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
