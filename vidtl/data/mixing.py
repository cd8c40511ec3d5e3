"""MixUp and CutMix: clips of a micro-batch mixed with each other, labels with them, on the device.

What is drawn for a micro-batch comes from (seed, optimizer step, micro-batch, process), so that a resumed run mixes as
the unbroken one. One draw holds for the whole micro-batch and the partner of a clip is the clip at the same place
counted from the end, as in scenic and timm. Clips of weight 0, which only fill up a batch, mix with none.

Labels become soft. `training.losses` takes them as they are and smooths them afterwards, which is the same as before.
Sources: Zhang et al. 2018 (MixUp), Yun et al. 2019 (CutMix), timm `Mixup` in batch mode with the corrected share.
"""

from typing import NamedTuple

import numpy as np
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.pixels import to_device
from vidtl.data.sampling import Box
from vidtl.runtime.seeding import generator

# Last key of the random streams of micro-batches, so that they never meet those of clips (`vidtl.data.dataset`).
_MIXING = 2


class Mixing(NamedTuple):
    """How the clips of one micro-batch are mixed."""

    own_share: float
    """Share of a clip's own pixels and labels; its partner has the rest."""
    box: Box | None
    """CutMix: the part of every frame that shows the partner. None for MixUp, where both show through everywhere."""
    partners: tuple[int, ...]
    """Number of each clip's partner; a clip that is its own partner stays as it is."""


def draw_mixing(
    config: AugmentationConfig, frame_size: tuple[int, int], weights: list[float], seed: int, *position: int
) -> Mixing | None:
    """What happens to one micro-batch; None where nothing does.

    Args:
        frame_size: height and width of the clips.
        weights: of the B clips; those of weight 0 come last.
        position: optimizer step, micro-batch and process.
    """
    real = sum(weight > 0 for weight in weights)
    if real < 2 or not (config.mixup_alpha > 0 or config.cutmix_alpha > 0):
        return None
    rng = generator(seed, *position, _MIXING)
    mixed, switched = rng.random(2)
    if mixed >= config.mix_probability:
        return None
    cutmix = config.mixup_alpha == 0 or (config.cutmix_alpha > 0 and switched < config.cutmix_share)
    alpha = config.cutmix_alpha if cutmix else config.mixup_alpha
    own_share = float(rng.beta(alpha, alpha))
    partners = (*reversed(range(real)), *range(real, len(weights)))
    if not cutmix:
        return Mixing(own_share, None, partners)
    box = _cut_box(frame_size, own_share, rng)
    return Mixing(1 - box.height * box.width / (frame_size[0] * frame_size[1]), box, partners)


def _cut_box(frame_size: tuple[int, int], own_share: float, rng: np.random.Generator) -> Box:
    """A box of the frame's shape around a random pixel, cut off at the frame's edges."""
    edges = []
    for side in frame_size:
        length, centre = int(side * np.sqrt(1 - own_share)), int(rng.integers(side))
        edges.append((max(centre - length // 2, 0), min(centre + (length + 1) // 2, side)))
    (top, bottom), (left, right) = edges
    return Box(top, left, bottom - top, right - left)


def mix(input_BTCHW: torch.Tensor, targets_BK: torch.Tensor, mixing: Mixing) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips and targets after mixing, of the shapes they had; the arguments stay as they are."""
    partners = to_device(torch.tensor(mixing.partners), input_BTCHW.device)
    # A clip that is its own partner does not change, not in the last bit either: lerp adds a multiple of no difference.
    mixed_BK = torch.lerp(targets_BK[partners], targets_BK, mixing.own_share)
    if mixing.box is None:
        return torch.lerp(input_BTCHW[partners], input_BTCHW, mixing.own_share), mixed_BK
    top, left, height, width = mixing.box
    rows, columns = slice(top, top + height), slice(left, left + width)
    mixed_BTCHW = input_BTCHW.clone()
    mixed_BTCHW[..., rows, columns] = input_BTCHW[..., rows, columns][partners]
    return mixed_BTCHW, mixed_BK
