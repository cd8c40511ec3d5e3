"""Random changes to training clips, on the device, batched, the same for all frames of a clip.

The random numbers of a clip are drawn where it is decoded, from (seed, epoch, sample, view), and travel with it; this
module turns them into pixels. The crop is not here: it is a box that the decoder reads (`vidtl.data.sampling`). What
mixes clips with each other is in `vidtl.data.mixing`.

Order: RandAugment on uint8, colour, flip, normalisation, erasing, mixing. Published code does the same except for the
place of crop and flip, which commute with everything but RandAugment's geometry.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange

from vidtl.config import AugmentationConfig, ClipConfig
from vidtl.data.batch import ClipBatch
from vidtl.data.changes import Augmentation, Erasure
from vidtl.data.mixing import mix
from vidtl.data.pixels import normalise, to_device, to_rgb
from vidtl.data.rand_augment import apply_operations, draw_operations
from vidtl.data.sampling import draw_box

GREY_WEIGHTS = (0.299, 0.587, 0.114)
# RGB to YIQ: rotating its last two axes turns the hue and leaves the luma as it is.
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))

# Random erasing as in timm, VideoMAE and MViT: share of the area, and height divided by width.
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)


def draw_augmentation(
    config: AugmentationConfig, frame_size: tuple[int, int], rng: np.random.Generator
) -> Augmentation:
    """One clip's changes (ViViT's recipe: colour jitter with one probability, then grey with another).

    Every number is drawn whether it is used or not, so that switching one change on leaves the others alone.
    """
    flip, colour, grey = rng.random(3) < (config.flip_probability, config.colour_probability, config.grey_probability)
    brightness, saturation, contrast, hue = rng.uniform(-1, 1, size=4)
    erasure = _draw_erasure(config, frame_size, rng)
    return Augmentation(
        flip=float(flip),
        brightness=float(config.brightness * brightness * colour),
        saturation=0.0 if grey else float(1 + config.saturation * saturation * colour),
        contrast=float(1 + config.contrast * contrast * colour),
        hue=float(config.hue * hue * colour),
        operations=draw_operations(config, frame_size, rng),
        erasure=erasure,
    )


def _draw_erasure(config: AugmentationConfig, frame_size: tuple[int, int], rng: np.random.Generator) -> Erasure | None:
    """A box by timm's `RandomErasing`: none where no try fits."""
    chosen = rng.random() < config.erase_probability
    box = draw_box(*frame_size, ERASED_AREA, ERASED_ASPECT, rng)
    seed = int(rng.integers(2**62))
    return Erasure(box, seed) if chosen and box else None


def _colour_matrices(saturation_B: torch.Tensor, hue_B: torch.Tensor) -> torch.Tensor:
    """[B, 3, 3]: saturation, then a rotation of the chroma plane of YIQ, as one linear map of RGB; on the host."""
    eye = torch.eye(3)
    grey = torch.tensor(GREY_WEIGHTS).expand(3, 3)
    saturate = torch.lerp(grey, eye, saturation_B[:, None, None])
    cosine, sine = torch.cos(2 * torch.pi * hue_B), torch.sin(2 * torch.pi * hue_B)
    rotation = eye.repeat(len(hue_B), 1, 1)
    rotation[:, 1, 1], rotation[:, 1, 2] = cosine, -sine
    rotation[:, 2, 1], rotation[:, 2, 2] = sine, cosine
    to_yiq = torch.tensor(RGB_TO_YIQ)
    matrices: torch.Tensor = torch.linalg.inv(to_yiq) @ rotation @ to_yiq @ saturate
    return matrices


def _change_colours(rgb_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Brightness, saturation, hue, then contrast around the mean colour of each frame."""
    brightness, saturation, contrast, hue = torch.tensor([clip[1:5] for clip in augmentations]).unbind(dim=1)
    matrices = to_device(_colour_matrices(saturation, hue), rgb_BTCHW.device)
    brightness, contrast = (to_device(values, rgb_BTCHW.device) for values in (brightness, contrast))
    frames, height = rgb_BTCHW.shape[1], rgb_BTCHW.shape[3]
    pixels = rearrange(rgb_BTCHW, "B T C H W -> B C (T H W)")
    pixels = (pixels + brightness[:, None, None]).clamp(0, 1)
    pixels = matrices @ pixels
    rgb_BTCHW = rearrange(pixels, "B C (T H W) -> B T C H W", T=frames, H=height)
    mean = rgb_BTCHW.mean(dim=(3, 4), keepdim=True)
    return torch.lerp(mean, rgb_BTCHW, contrast[:, None, None, None, None]).clamp(0, 1)


def augment(rgb_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Apply each clip's operations, colour changes and flip, in this order.

    Work that no clip of the batch asks for is left out.

    Args:
        rgb_BTCHW: float32 in 0..1.
        augmentations: B of them.

    Returns:
        float32 [B, T, 3, H, W] in 0..1.
    """
    if any(clip.operations for clip in augmentations):
        clips = zip(rgb_BTCHW, augmentations, strict=True)
        rgb_BTCHW = torch.stack([apply_operations(rgb_TCHW, clip.operations) for rgb_TCHW, clip in clips])
    if any(clip.changes_colours for clip in augmentations):
        rgb_BTCHW = _change_colours(rgb_BTCHW, augmentations)
    if any(clip.flip for clip in augmentations):
        flip = to_device(torch.tensor([clip.flip > 0 for clip in augmentations]), rgb_BTCHW.device)
        rgb_BTCHW = torch.where(flip[:, None, None, None, None], rgb_BTCHW.flip(-1), rgb_BTCHW)
    return rgb_BTCHW


def erase(input_BTCHW: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Put standard normal noise into each clip's erased box, in place: the same box in all frames, noise of its own
    in each (timm's `pixel` mode; its boxes on video are MViT's cubes).

    Args:
        input_BTCHW: normalised; noise of that range is what published code draws.
        augmentations: B of them.
    """
    for clip_TCHW, augmentation in zip(input_BTCHW, augmentations, strict=True):
        if augmentation.erasure:
            top, left, height, width = augmentation.erasure.box
            box = clip_TCHW[:, :, top : top + height, left : left + width]
            # A generator for each clip: its noise depends neither on its neighbours nor on the number of processes.
            noise = torch.Generator(box.device).manual_seed(augmentation.erasure.seed)
            box.copy_(torch.randn(box.shape, generator=noise, device=box.device))
    return input_BTCHW


def batch_input(batch: ClipBatch, clip: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch's uint8 frames to what the model trains on.

    Returns:
        The model's input, float RGB, augmented, normalised and mixed: [B, T, 3, H, W]; targets, mixed alike: [B, K].
    """
    rgb_BTCHW = augment(to_rgb(batch.pixels, batch.colour), batch.augmentation)
    input_BTCHW = erase(normalise(rgb_BTCHW, clip), batch.augmentation)
    return mix(input_BTCHW, batch.targets, batch.mixing) if batch.mixing else (input_BTCHW, batch.targets)
