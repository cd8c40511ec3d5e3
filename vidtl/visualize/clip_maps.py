"""Maps of one decoded video: TokenLearner's, or the attention rollout of a ViViT without it.

Axes: B clips, T frames, H W pixels, C channels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from vidtl.data.batch import normalize, to_rgb
from vidtl.models.base import VideoModel
from vidtl.visualize.rollout import clip_rollout
from vidtl.visualize.token_maps import TokenMapImages, clip_token_maps, token_map_images


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipMaps:
    """Frames of a clip and the maps over them."""

    kind: str
    """`tokens` or `rollout`."""
    frames: NDArray[np.uint8]
    """[T, H, W, C] RGB."""
    images: TokenMapImages


def clip_maps(model: VideoModel, pixels: torch.Tensor, color: int) -> ClipMaps:
    """Compute the maps of the first view of a video.

    Args:
        model: on any device.
        pixels: uint8 [V, T, ...], see `vidtl.data.batch.VideoViews`.
        color: color code of the video.

    Raises:
        UserError: a model that has neither TokenLearner nor a rollout.
    """
    rgb_BTCHW, frames = rgb_clip(pixels, color)
    input_BTCHW = normalize(rgb_BTCHW, model.clip_config).to(next(model.parameters()).device)
    encoder = getattr(model, "encoder", model)
    if getattr(encoder, "token_learners", None) or getattr(encoder, "token_learner", None):
        maps_tShw = clip_token_maps(model, input_BTCHW)
        images = token_map_images(maps_tShw, frames, len(frames) // len(maps_tShw))
        return ClipMaps(kind="tokens", frames=frames, images=images)
    maps_thw = clip_rollout(model, input_BTCHW)
    length = len(frames) // len(maps_thw)
    images = token_map_images(maps_thw[:, None], frames, length, ["rollout"], compare_timesteps=True)
    return ClipMaps(kind="rollout", frames=frames, images=images)


def rgb_clip(pixels: torch.Tensor, color: int) -> tuple[torch.Tensor, NDArray[np.uint8]]:
    """Convert the first view of a video to RGB, as float [1, T, C, H, W] in 0..1 and as uint8 [T, H, W, C]."""
    rgb_BTCHW = to_rgb(pixels[:1], torch.tensor([color]))
    return rgb_BTCHW, rearrange((rgb_BTCHW[0] * 255).round().byte(), "T C H W -> T H W C").numpy()
