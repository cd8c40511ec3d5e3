"""uint8 to float RGB: against FFmpeg's conversion, and against the definition."""

import av
import numpy as np
import pytest
import torch

from vidtl.config import ClipConfig
from vidtl.data.batch import conversion, normalize, to_rgb
from vidtl.video import Color


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_planes_convert_as_ffmpeg_converts_them(matrix, full_range):
    y, x = np.mgrid[0:48, 0:64]  # without sharp edges, so that chroma upsampling hardly matters
    channels = [127 + 100 * np.sin(x / 17), 127 + 100 * np.cos(y / 13), 127 + 100 * np.sin((x + y) / 19)]
    rgb = np.stack(channels, axis=-1).astype(np.uint8)
    space = {"bt601": "ITU601", "bt709": "ITU709"}[matrix]
    planes = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=space, dst_color_range="JPEG" if full_range else "MPEG"
    )
    pixels = torch.from_numpy(planes.to_ndarray())[None, None]
    ours = to_rgb(pixels, torch.tensor([Color(matrix, full_range).code()]))
    difference = (ours[0, 0].permute(1, 2, 0) * 255 - torch.from_numpy(rgb).float()).abs()
    assert difference.mean() < 1.5
    wrong = to_rgb(pixels, torch.tensor([Color(matrix, not full_range).code()]))
    assert (wrong - ours).abs().mean() * 255 > 3  # the tags matter


@pytest.mark.parametrize("full_range", [False, True])
def test_black_and_white_are_exact(full_range):
    low, high = (0, 255) if full_range else (16, 235)
    rows = torch.tensor(conversion(Color("bt709", full_range)))
    for luma, expected in ((low, 0.0), (high, 1.0)):
        rgb = rows @ torch.tensor([luma, 128.0, 128.0, 1.0])
        torch.testing.assert_close(rgb, torch.full((3,), expected), atol=1e-6, rtol=0)


def test_each_clip_of_a_batch_uses_its_own_colors():
    pixels = torch.randint(0, 256, (2, 3, 12, 8), dtype=torch.uint8)
    codes = torch.tensor([Color("bt601", False).code(), Color("bt709", True).code()])
    alone = [to_rgb(pixels[[index]], codes[[index]]) for index in range(2)]
    torch.testing.assert_close(to_rgb(pixels, codes), torch.cat(alone))


def test_rgb_is_scaled_and_normalized_to_minus_one_and_one():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2, 1).expand(1, 1, 2, 2, 3)
    rgb = to_rgb(pixels, torch.zeros(1, dtype=torch.int64))
    assert rgb.shape == (1, 1, 3, 2, 2)
    values = normalize(rgb, ClipConfig())
    assert values.unique().tolist() == [-1.0, 1.0]
