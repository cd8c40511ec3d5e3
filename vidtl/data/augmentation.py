"""Random augmentation and mixing of training clips, on the device, batched, the same for all frames of a clip.

The random numbers of a clip are drawn where it is decoded, and travel with it. Order: RandAugment on uint8, color
jitter, flip, normalization, random erasing, mixing; as in published code, except for crop (a box that the decoder
reads, `vidtl.data.sampling`) and flip, which commute with everything but RandAugment's geometry.

MixUp and CutMix draw once per micro-batch, from (seed, optimizer step, micro-batch, process). The partner of a clip is
the clip at the same position counted from the end, as in scenic and timm. Labels become soft; the loss smooths them
afterwards, which is equivalent to smoothing before. Sources: Zhang et al. 2018 (MixUp), Yun et al. 2019 (CutMix), timm
`Mixup` in batch mode with the corrected share.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange

from vidtl.config import AugmentationConfig
from vidtl.data.rand_augment import Operation, apply_operations, draw_operations
from vidtl.data.sampling import draw_box
from vidtl.runtime.seeding import generator
from vidtl.video import Box

Size = tuple[int, int]  # height and width

# RGB to YIQ: a rotation of the last two axes changes the hue and keeps the luma, the first.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))

# Random erasing in timm, VideoMAE and MViT: share of the area, and height divided by width.
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)

_MIXING = 2  # last key of the random streams of micro-batches, different from those of clips (`vidtl.data.dataset`)
_CUTMIX_SHARE = 0.5  # of the batches, all mixed, where both are on (`switch_prob`, `prob` of timm, VideoMAE, T2T-ViT)


class ColorJitter(NamedTuple):
    """Color change of one clip; the defaults change nothing.

    `brightness` is added to RGB in 0..1; `contrast` 0 is the mean color, `saturation` 0 gray; `hue` is in turns.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


class Erasure(NamedTuple):
    """A box of the clip, in its pixels, that noise of a seed replaces in every frame."""

    box: Box
    seed: int


class Augmentation(NamedTuple):
    """Random changes of one clip: RandAugment's operations first, erasure last; the defaults change nothing."""

    flip: bool = False
    color: ColorJitter = ColorJitter()
    operations: tuple[Operation, ...] = ()
    erasure: Erasure | None = None
    vertical_flip: bool = False


def draw_augmentation(config: AugmentationConfig, frame_size: Size, rng: np.random.Generator) -> Augmentation:
    """Draw the augmentation of one clip: every number, even if unused, so that one change leaves the others alone."""
    probabilities = (config.flip_probability, config.color_jitter_probability, config.grayscale_probability)
    flip, jitter, gray = rng.random(3) < probabilities
    brightness, contrast, saturation, hue = config.color_jitter
    draws = (rng.uniform(-1, 1, size=4) * jitter).tolist()
    erased = rng.random() < config.random_erasing_probability
    box = draw_box(*frame_size, ERASED_AREA, ERASED_ASPECT, rng)
    seed = int(rng.integers(2**62))
    erasure = Erasure(box, seed) if erased and box else None  # as timm's `RandomErasing`, none if no try fits
    saturation = 0.0 if gray else 1 + saturation * draws[1]
    color = ColorJitter(brightness * draws[0], 1 + contrast * draws[2], saturation, hue * draws[3])
    operations = draw_operations(config, frame_size, rng)
    return Augmentation(bool(flip), color, operations, erasure, bool(rng.random() < config.vertical_flip_probability))


def _color_matrices(saturation_B: torch.Tensor, hue_B: torch.Tensor) -> torch.Tensor:
    """Return [B, 3, 3] on the host: saturation, then a rotation of the chroma plane of YIQ, as a linear map of RGB."""
    eye, to_yiq = torch.eye(3), torch.tensor(RGB_TO_YIQ)
    saturate = torch.lerp(to_yiq[0].expand(3, 3), eye, saturation_B[:, None, None])
    cosine, sine = torch.cos(2 * torch.pi * hue_B), torch.sin(2 * torch.pi * hue_B)
    rotation = eye.repeat(len(hue_B), 1, 1)
    rotation[:, 1, 1], rotation[:, 1, 2] = cosine, -sine
    rotation[:, 2, 1], rotation[:, 2, 2] = sine, cosine
    return torch.linalg.inv(to_yiq) @ rotation @ to_yiq @ saturate  # type: ignore[no-any-return]


def _jitter_colors(rgb_BTCHW: torch.Tensor, colors: Sequence[ColorJitter]) -> torch.Tensor:
    """Change brightness, saturation, hue, then contrast around the mean color of each frame."""
    brightness, contrast, saturation, hue = torch.tensor(colors).unbind(dim=1)
    on_host = _color_matrices(saturation, hue), brightness, contrast
    matrices, brightness, contrast = (values.to(rgb_BTCHW.device, non_blocking=True) for values in on_host)
    frames, height = rgb_BTCHW.shape[1], rgb_BTCHW.shape[3]
    pixels = rearrange(rgb_BTCHW, "B T C H W -> B C (T H W)")
    pixels = matrices @ (pixels + brightness[:, None, None]).clamp(0, 1)
    rgb_BTCHW = rearrange(pixels, "B C (T H W) -> B T C H W", T=frames, H=height)
    mean = rgb_BTCHW.mean(dim=(3, 4), keepdim=True)
    return torch.lerp(mean, rgb_BTCHW, contrast[:, None, None, None, None]).clamp(0, 1)


def augment(rgb_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Apply RandAugment, color jitter and flips, in this order, where drawn, to float32 [B, T, 3, H, W] in 0..1."""
    if any(clip.operations for clip in augmentations):
        clips = zip(rgb_BTCHW, augmentations, strict=True)
        rgb_BTCHW = torch.stack([apply_operations(rgb_TCHW, clip.operations) for rgb_TCHW, clip in clips])
    if any(clip.color != ColorJitter() for clip in augmentations):
        rgb_BTCHW = _jitter_colors(rgb_BTCHW, [clip.color for clip in augmentations])
    flips = [clip.flip for clip in augmentations], [clip.vertical_flip for clip in augmentations]
    for axis, chosen in zip((-1, -2), flips, strict=True):
        if any(chosen):
            flip = torch.tensor(chosen).to(rgb_BTCHW.device, non_blocking=True)
            rgb_BTCHW = torch.where(flip[:, None, None, None, None], rgb_BTCHW.flip(axis), rgb_BTCHW)
    return rgb_BTCHW


def erase(input_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Fill the erased box with normal noise, in place (timm's `pixel` mode; one box for all frames, as in MViT)."""
    for clip_TCHW, augmentation in zip(input_BTCHW, augmentations, strict=True):
        if augmentation.erasure:
            top, left, height, width = augmentation.erasure.box
            box = clip_TCHW[:, :, top : top + height, left : left + width]
            # A generator per clip: its noise depends neither on other clips nor on the number of processes.
            noise = torch.Generator(box.device).manual_seed(augmentation.erasure.seed)
            box.copy_(torch.randn(box.shape, generator=noise, device=box.device))
    return input_BTCHW


class Mixing(NamedTuple):
    """MixUp or CutMix of the clips of one micro-batch; a clip that is its own partner is unchanged."""

    own_share: float
    """Share of a clip's own pixels and labels; its partner has the rest."""
    box: Box | None
    """CutMix: the part of every frame that shows the partner. None for MixUp, which blends whole frames."""
    partners: tuple[int, ...]


def draw_mixing(
    config: AugmentationConfig, frame_size: Size, weights: list[float], seed: int, *position: int
) -> Mixing | None:
    """Draw the mixing of one micro-batch; None if its clips are not mixed.

    Of B `weights`, those of 0, which pad a batch, come last. `position` is optimizer step, micro-batch and process.
    """
    real = sum(weight > 0 for weight in weights)
    if real < 2 or not config.mixes:
        return None
    rng = generator(seed, *position, _MIXING)
    _, switched = rng.random(2)
    cutmix = config.mixup_alpha == 0 or (config.cutmix_alpha > 0 and switched < _CUTMIX_SHARE)
    alpha = config.cutmix_alpha if cutmix else config.mixup_alpha
    own_share = float(rng.beta(alpha, alpha))
    partners = (*reversed(range(real)), *range(real, len(weights)))
    if not cutmix:
        return Mixing(own_share, None, partners)
    edges = []
    for side in frame_size:  # a box of the frame's shape around a random pixel, clipped at the frame's edges
        length, center = int(side * np.sqrt(1 - own_share)), int(rng.integers(side))
        edges.append((max(center - length // 2, 0), min(center + (length + 1) // 2, side)))
    (top, bottom), (left, right) = edges
    box = Box(top, left, bottom - top, right - left)
    return Mixing(1 - box.height * box.width / (frame_size[0] * frame_size[1]), box, partners)


def mix(input_BTCHW: torch.Tensor, targets_BK: torch.Tensor, mixing: Mixing) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mixed clips and targets of the same shapes; the arguments are not changed."""
    partners = torch.tensor(mixing.partners).to(input_BTCHW.device, non_blocking=True)
    # A clip that is its own partner stays bitwise equal: lerp adds a multiple of a zero difference.
    mixed_BK = torch.lerp(targets_BK[partners], targets_BK, mixing.own_share)
    if mixing.box is None:
        return torch.lerp(input_BTCHW[partners], input_BTCHW, mixing.own_share), mixed_BK
    top, left, height, width = mixing.box
    rows, columns = slice(top, top + height), slice(left, left + width)
    mixed_BTCHW = input_BTCHW.clone()
    mixed_BTCHW[..., rows, columns] = input_BTCHW[..., rows, columns][partners]
    return mixed_BTCHW, mixed_BK
