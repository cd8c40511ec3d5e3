"""Random changes to training clips, on the device, batched, the same for all frames of a clip.

The random numbers of a clip are drawn where it is decoded, from (seed, epoch, sample), and travel with it; this module
turns them into pixels. The crop is not here: it is a box that the decoder reads (`vidtl.data.sampling`).
"""

from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange

from vidtl.config import AugmentationConfig, ClipConfig
from vidtl.data.batch import ClipBatch
from vidtl.data.pixels import normalise, to_rgb

GREY_WEIGHTS = (0.299, 0.587, 0.114)
# RGB to YIQ: rotating its last two axes turns the hue and leaves the luma as it is.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class Augmentation(NamedTuple):
    """What happens to one clip; the neutral value of each field changes nothing."""

    flip: float = 0.0
    """1 mirrors the clip."""
    brightness: float = 0.0
    """Added to RGB in 0..1."""
    saturation: float = 1.0
    """0 is grey, 1 is unchanged."""
    contrast: float = 1.0
    """0 is the frame's mean colour, 1 is unchanged."""
    hue: float = 0.0
    """Turns of the colour circle."""


def draw_augmentation(config: AugmentationConfig, rng: np.random.Generator) -> Augmentation:
    """One clip's changes (ViViT's recipe: colour jitter with one probability, then grey with another).

    Every number is drawn whether it is used or not, so that switching one change on leaves the others alone.
    """
    flip, colour, grey = rng.random(3) < (config.flip_probability, config.colour_probability, config.grey_probability)
    brightness, saturation, contrast, hue = rng.uniform(-1, 1, size=4)
    return Augmentation(
        flip=float(flip),
        brightness=config.brightness * brightness * colour,
        saturation=0.0 if grey else 1 + config.saturation * saturation * colour,
        contrast=1 + config.contrast * contrast * colour,
        hue=config.hue * hue * colour,
    )


def _colour_matrices(saturation_B: torch.Tensor, hue_B: torch.Tensor) -> torch.Tensor:
    """[B, 3, 3]: saturation, then a rotation of the chroma plane of YIQ, as one linear map of RGB."""
    eye = torch.eye(3, device=hue_B.device)
    grey = hue_B.new_tensor(GREY_WEIGHTS).expand(3, 3)
    saturate = torch.lerp(grey, eye, saturation_B[:, None, None])
    cosine, sine = torch.cos(2 * torch.pi * hue_B), torch.sin(2 * torch.pi * hue_B)
    rotation = eye.repeat(len(hue_B), 1, 1)
    rotation[:, 1, 1], rotation[:, 1, 2] = cosine, -sine
    rotation[:, 2, 1], rotation[:, 2, 2] = sine, cosine
    to_yiq = hue_B.new_tensor(RGB_TO_YIQ)
    matrices: torch.Tensor = torch.linalg.inv(to_yiq) @ rotation @ to_yiq @ saturate
    return matrices


def augment(rgb_BTCHW: torch.Tensor, parameters: torch.Tensor, colour: bool) -> torch.Tensor:
    """Apply each clip's changes in the order brightness, saturation, hue, contrast, flip.

    Args:
        rgb_BTCHW: float32 in 0..1.
        parameters: float32 [B, 5]; one `Augmentation` per row.
        colour: whether any clip's colours change; False leaves out the work (asking the device would make it wait).

    Returns:
        float32 [B, T, 3, H, W] in 0..1. Contrast is taken around the mean colour of each frame.
    """
    flip, brightness, saturation, contrast, hue = parameters.unbind(dim=1)
    if colour:
        frames, height = rgb_BTCHW.shape[1], rgb_BTCHW.shape[3]
        pixels = rearrange(rgb_BTCHW, "B T C H W -> B C (T H W)")
        pixels = (pixels + brightness[:, None, None]).clamp(0, 1)
        pixels = _colour_matrices(saturation, hue) @ pixels
        rgb_BTCHW = rearrange(pixels, "B C (T H W) -> B T C H W", T=frames, H=height)
        mean = rgb_BTCHW.mean(dim=(3, 4), keepdim=True)
        rgb_BTCHW = torch.lerp(mean, rgb_BTCHW, contrast[:, None, None, None, None]).clamp(0, 1)
    return torch.where(flip[:, None, None, None, None] > 0, rgb_BTCHW.flip(-1), rgb_BTCHW)


def batch_input(batch: ClipBatch, clip: ClipConfig, augmentation: AugmentationConfig) -> torch.Tensor:
    """A batch's uint8 frames to the model's training input: float RGB, augmented, normalised; [B, T, 3, H, W]."""
    colour = augmentation.colour_probability > 0 or augmentation.grey_probability > 0
    rgb = to_rgb(batch.pixels, batch.colour)
    return normalise(augment(rgb, batch.augmentation, colour), clip)
