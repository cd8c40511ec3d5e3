"""uint8 frames to normalised float RGB, on the device that runs the model.

Axes: B batch, T frames, C = 3 channels R G B, H W pixels.

Frames travel as uint8 because float32 clips cost four times the memory traffic of RGB and eight times that of planar
YUV 4:2:0 (I420); the conversion happens once, on the device.
"""

from functools import cache

import torch
from einops import rearrange
from torch.nn import functional

from vidtl.config import ClipConfig
from vidtl.video.reader import LUMA_WEIGHTS, MATRICES, Colour


def conversion(colour: Colour) -> list[list[float]]:
    """Rows R, G, B of the affine map from (Y, U, V) in 0..255 to RGB in 0..1: three weights and an offset each.

    Source: ITU-T H.273, equations for MatrixCoefficients; limited range spans 16..235 (luma) and 16..240 (chroma).
    """
    red, blue = LUMA_WEIGHTS[colour.matrix]
    green = 1 - red - blue
    luma_low, luma_span, chroma_span = (0, 255, 255) if colour.full_range else (16, 219, 224)
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
    """All conversions, indexed by `Colour.code()`: [codes, 3, 4]; copied to the device once, not for every batch."""
    colours = [Colour(matrix, full_range) for matrix in MATRICES for full_range in (False, True)]
    return torch.tensor([conversion(colour) for colour in sorted(colours, key=Colour.code)], device=device)


def planar_to_rgb(pixels: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """I420 frames to RGB.

    Args:
        pixels: uint8 [B, T, H * 3 / 2, W]; the Y plane, then U and V at half size, each contiguous. H and W even.
        colour: int64 [B]; `Colour.code()` of each clip's file.

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
    table = _conversions(pixels.device)[colour]
    rgb = torch.baddbmm(table[:, :, 3:], table[:, :, :3], yuv).clamp_(0, 1)
    return rearrange(rgb, "B C (T H W) -> B T C H W", T=frames, H=height)


def to_rgb(pixels: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Frames as they were transported, planar [B, T, H * 3 / 2, W] or RGB [B, T, H, W, 3], to float32 BTCHW in 0..1."""
    if pixels.ndim == 4:
        return planar_to_rgb(pixels, colour)
    rgb: torch.Tensor = rearrange(pixels, "B T H W C -> B T C H W").float() / 255
    return rgb


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A few numbers of the host on the device, without waiting until it has done all that was asked of it before."""
    return values.to(device, non_blocking=True)


def normalise(rgb_BTCHW: torch.Tensor, clip: ClipConfig) -> torch.Tensor:
    """Subtract `clip.mean` and divide by `clip.std`, per channel."""
    mean, std = to_device(torch.tensor([clip.mean, clip.std]), rgb_BTCHW.device)[:, :, None, None]
    input_BTCHW: torch.Tensor = (rgb_BTCHW - mean) / std
    return input_BTCHW


def prepare_input(pixels: torch.Tensor, colour: torch.Tensor, clip: ClipConfig) -> torch.Tensor:
    """Transported uint8 frames to the model's input, without augmentation.

    Args:
        pixels: uint8 [B, T, H * 3 / 2, W] (planar) or [B, T, H, W, 3] (RGB).
        colour: int64 [B]; see `planar_to_rgb`; unused for RGB.
        clip: its `mean` and `std` are used.

    Returns:
        float32 [B, T, 3, H, W].
    """
    return normalise(to_rgb(pixels, colour), clip)
