"""Convert uint8 frames to normalized float RGB, on the device that runs the model.

Axes: B batch, T frames, C = 3 channels R G B, H W pixels.

Frames travel as uint8 because float32 clips cost four times the memory traffic of RGB and eight times that of planar
YUV 4:2:0 (I420); the conversion happens once, on the device.
"""

from functools import cache

import torch
from einops import rearrange
from torch.nn import functional

from vidtl.config import ClipConfig
from vidtl.video.reader import LUMA_WEIGHTS, MATRICES, Color


def conversion(color: Color) -> list[list[float]]:
    """Return rows R, G, B of the map from (Y, U, V) in 0..255 to RGB in 0..1: three weights and an offset each.

    Source: ITU-T H.273, equations for MatrixCoefficients; limited range spans 16..235 (luma) and 16..240 (chroma).
    """
    red, blue = LUMA_WEIGHTS[color.matrix]
    green = 1 - red - blue
    luma_low, luma_span, chroma_span = (0, 255, 255) if color.full_range else (16, 219, 224)
    weights = [
        (1.0, 0.0, 2 * (1 - red)),
        (1.0, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green),
        (1.0, 2 * (1 - blue), 0.0),
    ]
    rows = []
    for luma, u, v in weights:
        row = [luma / luma_span, u / chroma_span, v / chroma_span]
        rows.append([*row, -(row[0] * luma_low + (row[1] + row[2]) * 128)])
    return rows


@cache
def _conversions(device: torch.device) -> torch.Tensor:
    """Return all conversions by `Color.code()`: [codes, 3, 4]; cached to copy them to the device once."""
    colors = [Color(matrix, full_range) for matrix in MATRICES for full_range in (False, True)]
    return torch.tensor([conversion(color) for color in sorted(colors, key=Color.code)], device=device)


def planar_to_rgb(pixels: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Convert I420 frames to RGB.

    Args:
        pixels: uint8 [B, T, H * 3 / 2, W]; the Y plane, then U and V at half size, each contiguous. H and W even.
        color: int64 [B]; `Color.code()` of each clip's file.

    Returns:
        float32 [B, T, 3, H, W] in 0..1. Chroma is upsampled bilinearly.
    """
    batch, frames, rows, width = pixels.shape
    height = rows * 2 // 3
    flat = rearrange(pixels, "B T R W -> (B T) (R W)")
    luma = rearrange(flat[:, : height * width], "N (H W) -> N 1 H W", H=height).float()
    chroma = rearrange(flat[:, height * width :], "N (C H W) -> N C H W", C=2, H=height // 2).float()
    chroma = functional.interpolate(chroma, size=(height, width), mode="bilinear", align_corners=False)
    yuv = rearrange(torch.cat([luma, chroma], dim=1), "(B T) C H W -> B C (T H W)", B=batch)
    table = _conversions(pixels.device)[color]
    rgb = torch.baddbmm(table[:, :, 3:], table[:, :, :3], yuv).clamp_(0, 1)
    return rearrange(rgb, "B C (T H W) -> B T C H W", T=frames, H=height)


def to_rgb(pixels: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Convert transported frames, planar [B, T, H * 3 / 2, W] or RGB [B, T, H, W, 3], to float32 BTCHW in 0..1."""
    if pixels.ndim == 4:
        return planar_to_rgb(pixels, color)
    rgb: torch.Tensor = rearrange(pixels, "B T H W C -> B T C H W").float() / 255
    return rgb


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a few numbers to the device without waiting for its queued work."""
    return values.to(device, non_blocking=True)


def normalize(rgb_BTCHW: torch.Tensor, clip: ClipConfig) -> torch.Tensor:
    """Subtract `clip.mean` and divide by `clip.std`, per channel."""
    mean, std = to_device(torch.tensor([clip.mean, clip.std]), rgb_BTCHW.device)[:, :, None, None]
    input_BTCHW: torch.Tensor = (rgb_BTCHW - mean) / std
    return input_BTCHW


def prepare_input(pixels: torch.Tensor, color: torch.Tensor, clip: ClipConfig) -> torch.Tensor:
    """Convert transported uint8 frames to the model's input, without augmentation.

    Args:
        pixels: uint8 [B, T, H * 3 / 2, W] (planar) or [B, T, H, W, 3] (RGB).
        color: int64 [B]; see `planar_to_rgb`; not used for RGB.
        clip: its `mean` and `std` are used.

    Returns:
        float32 [B, T, 3, H, W].
    """
    return normalize(to_rgb(pixels, color), clip)
