"""MixUp and CutMix: mix the clips of a micro-batch, and their labels, on the device.

The draws of a micro-batch come from (seed, optimizer step, micro-batch, process), so that a resumed run mixes as an
uninterrupted one. One draw holds for the whole micro-batch, and the partner of a clip is the clip at the same position
counted from the end, as in scenic and timm. Clips of weight 0, which pad a batch, are not mixed.

Labels become soft. The loss smooths them afterwards, which is equivalent to smoothing before.
Sources: Zhang et al. 2018 (MixUp), Yun et al. 2019 (CutMix), timm `Mixup` in batch mode with the corrected share.
"""

from typing import NamedTuple

import numpy as np
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.pixels import to_device
from vidtl.runtime.seeding import generator
from vidtl.video import Box

# Last key of the random streams of micro-batches, different from those of clips (`vidtl.data.dataset`).
_MIXING = 2

# Where both are on, half of the batches are mixed by CutMix (`switch_prob` of timm, VideoMAE and T2T-ViT); every batch
# is mixed (`prob` 1.0 there).
_CUTMIX_SHARE = 0.5


class Mixing(NamedTuple):
    """The mixing of the clips of one micro-batch."""

    own_share: float
    """Share of a clip's own pixels and labels; its partner has the rest."""
    box: Box | None
    """CutMix: the part of every frame that shows the partner. None for MixUp, which blends whole frames."""
    partners: tuple[int, ...]
    """Number of each clip's partner; a clip that is its own partner is unchanged."""


def draw_mixing(
    config: AugmentationConfig, frame_size: tuple[int, int], weights: list[float], seed: int, *position: int
) -> Mixing | None:
    """Draw the mixing of one micro-batch; None if its clips are not mixed.

    Args:
        frame_size: height and width of the clips.
        weights: of the B clips; those of weight 0 come last.
        position: optimizer step, micro-batch and process.
    """
    real = sum(weight > 0 for weight in weights)
    if real < 2 or not (config.mixup_alpha > 0 or config.cutmix_alpha > 0):
        return None
    rng = generator(seed, *position, _MIXING)
    _, switched = rng.random(2)  # the first draw is kept for the streams of earlier versions
    cutmix = config.mixup_alpha == 0 or (config.cutmix_alpha > 0 and switched < _CUTMIX_SHARE)
    alpha = config.cutmix_alpha if cutmix else config.mixup_alpha
    own_share = float(rng.beta(alpha, alpha))
    partners = (*reversed(range(real)), *range(real, len(weights)))
    if not cutmix:
        return Mixing(own_share, None, partners)
    box = _cut_box(frame_size, own_share, rng)
    return Mixing(1 - box.height * box.width / (frame_size[0] * frame_size[1]), box, partners)


def _cut_box(frame_size: tuple[int, int], own_share: float, rng: np.random.Generator) -> Box:
    """Draw a box of the frame's shape around a random pixel, clipped at the frame's edges."""
    edges = []
    for side in frame_size:
        length, center = int(side * np.sqrt(1 - own_share)), int(rng.integers(side))
        edges.append((max(center - length // 2, 0), min(center + (length + 1) // 2, side)))
    (top, bottom), (left, right) = edges
    return Box(top, left, bottom - top, right - left)


def mix(input_BTCHW: torch.Tensor, targets_BK: torch.Tensor, mixing: Mixing) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mixed clips and targets of the same shapes; the arguments are not changed."""
    partners = to_device(torch.tensor(mixing.partners), input_BTCHW.device)
    # A clip that is its own partner stays bitwise equal: lerp adds a multiple of a zero difference.
    mixed_BK = torch.lerp(targets_BK[partners], targets_BK, mixing.own_share)
    if mixing.box is None:
        return torch.lerp(input_BTCHW[partners], input_BTCHW, mixing.own_share), mixed_BK
    top, left, height, width = mixing.box
    rows, columns = slice(top, top + height), slice(left, left + width)
    mixed_BTCHW = input_BTCHW.clone()
    mixed_BTCHW[..., rows, columns] = input_BTCHW[..., rows, columns][partners]
    return mixed_BTCHW, mixed_BK
