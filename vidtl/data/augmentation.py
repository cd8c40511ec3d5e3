"""Random augmentation of training clips, on the device, batched, the same for all frames of a clip.

The random numbers of a clip are drawn where it is decoded, from (seed, epoch, sample, view), and travel with it. The
crop is a box that the decoder reads (`vidtl.data.sampling`); mixing of clips is in `vidtl.data.mixing`.

Order: RandAugment on uint8, color jitter, flip, normalization, random erasing, mixing. Published code has the same
order except for crop and flip, which commute with everything but RandAugment's geometry.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange

from vidtl.config import AugmentationConfig
from vidtl.data.pixels import to_device
from vidtl.data.rand_augment import Operation, apply_operations, draw_operations
from vidtl.data.sampling import draw_box
from vidtl.video import Box

GRAY_WEIGHTS = (0.299, 0.587, 0.114)
# RGB to YIQ: a rotation of the last two axes changes the hue and keeps the luma.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))

# Random erasing in timm, VideoMAE and MViT: share of the area, and height divided by width.
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)


class ColorJitter(NamedTuple):
    """Color change of one clip; the defaults change nothing."""

    brightness: float = 0.0
    """Added to RGB in 0..1."""
    contrast: float = 1.0
    """0 is the mean color of the frame, 1 is unchanged."""
    saturation: float = 1.0
    """0 is grayscale, 1 is unchanged."""
    hue: float = 0.0
    """Turns of the color circle."""


class Erasure(NamedTuple):
    """A box of the clip that noise replaces in every frame."""

    box: Box
    """In pixels of the clip."""
    seed: int
    """Seed of the noise."""


class Augmentation(NamedTuple):
    """Random changes of one clip; the defaults change nothing."""

    flip: bool = False
    color: ColorJitter = ColorJitter()
    operations: tuple[Operation, ...] = ()
    """RandAugment, in this order, before everything else."""
    erasure: Erasure | None = None
    """After everything else."""


def draw_augmentation(
    config: AugmentationConfig, frame_size: tuple[int, int], rng: np.random.Generator
) -> Augmentation:
    """Draw the augmentation of one clip (ViViT: color jitter with one probability, then grayscale with another).

    Every number is drawn even if it is not used, so that enabling one change leaves the others alone.
    """
    flip, jitter, gray = rng.random(3) < (
        config.flip_probability,
        config.color_jitter_probability,
        config.grayscale_probability,
    )
    brightness, contrast, saturation, hue = config.color_jitter
    draws = rng.uniform(-1, 1, size=4) * jitter
    erasure = _draw_erasure(config, frame_size, rng)
    color = ColorJitter(
        brightness=float(brightness * draws[0]),
        contrast=float(1 + contrast * draws[2]),
        saturation=0.0 if gray else float(1 + saturation * draws[1]),
        hue=float(hue * draws[3]),
    )
    return Augmentation(bool(flip), color, draw_operations(config, frame_size, rng), erasure)


def _draw_erasure(config: AugmentationConfig, frame_size: tuple[int, int], rng: np.random.Generator) -> Erasure | None:
    """Draw a box as timm's `RandomErasing`; None if no try fits."""
    chosen = rng.random() < config.random_erasing_probability
    box = draw_box(*frame_size, ERASED_AREA, ERASED_ASPECT, rng)
    seed = int(rng.integers(2**62))
    return Erasure(box, seed) if chosen and box else None


def _color_matrices(saturation_B: torch.Tensor, hue_B: torch.Tensor) -> torch.Tensor:
    """Return [B, 3, 3] on the host: saturation, then a rotation of the chroma plane of YIQ, as a linear map of RGB."""
    eye = torch.eye(3)
    gray = torch.tensor(GRAY_WEIGHTS).expand(3, 3)
    saturate = torch.lerp(gray, eye, saturation_B[:, None, None])
    cosine, sine = torch.cos(2 * torch.pi * hue_B), torch.sin(2 * torch.pi * hue_B)
    rotation = eye.repeat(len(hue_B), 1, 1)
    rotation[:, 1, 1], rotation[:, 1, 2] = cosine, -sine
    rotation[:, 2, 1], rotation[:, 2, 2] = sine, cosine
    to_yiq = torch.tensor(RGB_TO_YIQ)
    matrices: torch.Tensor = torch.linalg.inv(to_yiq) @ rotation @ to_yiq @ saturate
    return matrices


def _jitter_colors(rgb_BTCHW: torch.Tensor, colors: Sequence[ColorJitter]) -> torch.Tensor:
    """Change brightness, saturation, hue, then contrast around the mean color of each frame."""
    brightness, contrast, saturation, hue = torch.tensor(colors).unbind(dim=1)
    matrices = to_device(_color_matrices(saturation, hue), rgb_BTCHW.device)
    brightness, contrast = (to_device(values, rgb_BTCHW.device) for values in (brightness, contrast))
    frames, height = rgb_BTCHW.shape[1], rgb_BTCHW.shape[3]
    pixels = rearrange(rgb_BTCHW, "B T C H W -> B C (T H W)")
    pixels = (pixels + brightness[:, None, None]).clamp(0, 1)
    pixels = matrices @ pixels
    rgb_BTCHW = rearrange(pixels, "B C (T H W) -> B T C H W", T=frames, H=height)
    mean = rgb_BTCHW.mean(dim=(3, 4), keepdim=True)
    return torch.lerp(mean, rgb_BTCHW, contrast[:, None, None, None, None]).clamp(0, 1)


def augment(rgb_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Apply each clip's RandAugment operations, color jitter and flip, in this order.

    Steps that no clip of the batch needs are skipped.

    Args:
        rgb_BTCHW: float32 in 0..1.
        augmentations: B of them.

    Returns:
        float32 [B, T, 3, H, W] in 0..1.
    """
    if any(clip.operations for clip in augmentations):
        clips = zip(rgb_BTCHW, augmentations, strict=True)
        rgb_BTCHW = torch.stack([apply_operations(rgb_TCHW, clip.operations) for rgb_TCHW, clip in clips])
    if any(clip.color != ColorJitter() for clip in augmentations):
        rgb_BTCHW = _jitter_colors(rgb_BTCHW, [clip.color for clip in augmentations])
    if any(clip.flip for clip in augmentations):
        flip = to_device(torch.tensor([clip.flip for clip in augmentations]), rgb_BTCHW.device)
        rgb_BTCHW = torch.where(flip[:, None, None, None, None], rgb_BTCHW.flip(-1), rgb_BTCHW)
    return rgb_BTCHW


def erase(input_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Fill each clip's erased box with standard normal noise, in place.

    The box is the same in all frames, the noise is not (timm's `pixel` mode; boxes of whole clips as in MViT).

    Args:
        input_BTCHW: normalized, since published code draws noise of that range.
        augmentations: B of them.
    """
    for clip_TCHW, augmentation in zip(input_BTCHW, augmentations, strict=True):
        if augmentation.erasure:
            top, left, height, width = augmentation.erasure.box
            box = clip_TCHW[:, :, top : top + height, left : left + width]
            # A generator for each clip: its noise depends neither on its neighbors nor on the number of processes.
            noise = torch.Generator(box.device).manual_seed(augmentation.erasure.seed)
            box.copy_(torch.randn(box.shape, generator=noise, device=box.device))
    return input_BTCHW
