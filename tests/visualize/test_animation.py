"""Animations opened again: every frame of the clip, in the size and at the rate of the pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from vidtl.visualize.map_figure import PANEL, Picture, animate, write_gif, write_mp4
from vidtl.visualize.token_maps import TokenMapImages, token_map_images

RATE = Fraction(25, 2)


def made(num_tokens: int, size: tuple[int, int] = (24, 33)) -> tuple[TokenMapImages, np.ndarray]:
    """Two timesteps of three frames each, and one frame that no map covers; map s looks at place s, then elsewhere."""
    rng = np.random.default_rng(0)
    clip_THWC = np.repeat(rng.integers(0, 256, (1, *size, 3), np.uint8), 7, axis=0)  # a still: frames must not merge
    maps = np.full((2, num_tokens, 2, 2), 0.01)
    for s in range(num_tokens):
        maps[0, s].flat[s % 4] = maps[1, s].flat[(s + 1) % 4] = 1.0
    return token_map_images(maps, clip_THWC, 3), clip_THWC


def pictures(num_tokens: int) -> list[Picture]:
    images, clip_THWC = made(num_tokens)
    return list(animate(images, clip_THWC, "a title\nthat is 視訊 " + "long " * 40))


@pytest.mark.parametrize("num_tokens", [1, 2, 8])
def test_a_picture_per_covered_frame_of_even_size(num_tokens: int) -> None:
    found = np.stack(pictures(num_tokens))
    assert len(found) == 6
    assert found.shape[1] % 2 == found.shape[2] % 2 == 0
    assert found.shape[2] > 2 * PANEL
    first, second = found[:3, 44:], found[3:, 44:]  # timesteps, below the header, which counts the frames
    assert (first == first[0]).all()
    assert (second == second[0]).all()
    assert (first != second).any()


def test_the_panel_of_a_token_is_hot_where_its_map_is() -> None:
    first, *_ = pictures(2)
    panel = first[44 + 18 :][: round(PANEL * 24 / 33), 6 + PANEL + 6 :][:, :PANEL].astype(int)
    heat = panel[..., 0] - panel[..., 2]  # yellow and orange: much red, little blue
    half_h, half_w = heat.shape[0] // 2, heat.shape[1] // 2
    assert heat[: half_h // 2, : half_w // 2].mean() > 50 + heat[half_h:, half_w:].mean()


def test_files_open_again_with_every_frame(tmp_path: Path) -> None:
    found = pictures(2)
    write_gif(found, tmp_path / "maps.gif", RATE)
    write_mp4(found, tmp_path / "maps.mp4", RATE)
    with Image.open(tmp_path / "maps.gif") as gif:
        assert (gif.info["duration"], gif.info["loop"]) == (80, 0)
        in_gif = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
    with av.open(str(tmp_path / "maps.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == RATE
        in_mp4 = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    for frames, tolerance in ((in_gif, 6), (in_mp4, 12)):
        errors = np.abs(np.stack(frames).astype(int) - np.stack(found))
        assert (errors.mean(axis=(1, 2, 3)) < tolerance).all()


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    bad = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.float64)]
    with pytest.raises(ValueError, match="dtype `uint8`"):
        write_mp4(bad, tmp_path / "maps.mp4", RATE)
    assert not list(tmp_path.iterdir())
