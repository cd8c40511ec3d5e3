"""Training clips as the model gets them, with their labels. Axes: B clips, T frames, H W pixels, K classes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from vidtl.config import ClipConfig
from vidtl.data.batch import ClipBatch, batch_input
from vidtl.runtime.files import printable
from vidtl.visualize import label_text
from vidtl.visualize.map_figure import Picture, draw_frames, make_page, panel

MAX_CLIPS, MAX_LINES = 12, 5
"""Clips drawn, and labels of each."""


class TrainingClip(NamedTuple):
    """A clip without normalization, and its labels."""

    frames: NDArray[np.uint8]
    """[T, H, W, 3]."""
    labels: list[str]
    """Of a mixed clip with the share of each in percent, those of its partner last; `MAX_LINES` of them."""


def training_clips(batch: ClipBatch, clip: ClipConfig, class_names: Sequence[str]) -> list[TrainingClip]:
    """Compute the model's input from a micro-batch on the device, and return its first clips without padding."""
    count = min(MAX_CLIPS, int(batch.weights.sum()))
    input_BTCHW = batch_input(batch, clip)[0][:count]
    mean, std = torch.tensor([clip.mean, clip.std], device=input_BTCHW.device)[:, :, None, None]
    rgb_BTCHW = (input_BTCHW * std + mean).clamp(0, 1).mul(255).round().byte()
    frames_BTHWC = rearrange(rgb_BTCHW, "B T C H W -> B T H W C").cpu().numpy()
    return [TrainingClip(frames, _labels(batch, i, class_names)) for i, frames in enumerate(frames_BTHWC)]


def _labels(batch: ClipBatch, number: int, class_names: Sequence[str]) -> list[str]:
    def names(index: int) -> list[str]:
        return [class_names[k] for k in batch.targets[index].nonzero()[:, 0].tolist()] or ["no label"]

    labels, mixing = names(number), batch.mixing
    if mixing and mixing.partners[number] != number:
        parts = {number: mixing.own_share, mixing.partners[number]: 1 - mixing.own_share}
        labels = [f"{share:.0%} {name}" for index, share in parts.items() for name in names(index)]
    rest = len(labels) - MAX_LINES
    return labels if rest <= 0 else [*labels[: MAX_LINES - 1], f"and {rest + 1} more"]


def draw_clips(clips: Sequence[TrainingClip], path: Path) -> None:
    """Draw a row of frames for each clip into a PNG file."""
    draw_frames([clip.frames for clip in clips], path, ["\n".join(map(label_text, clip.labels)) for clip in clips])


def animate_clips(clips: Sequence[TrainingClip], title: str) -> Iterator[Picture]:
    """Draw a grid of all clips for each frame."""
    for number in range(len(clips[0].frames)):
        panels = [("\n".join(map(printable, clip.labels)), panel(clip.frames[number])) for clip in clips]
        yield make_page(panels, title, f"frame {number + 1} of {len(clips[0].frames)}")
