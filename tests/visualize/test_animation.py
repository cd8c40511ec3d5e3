"""Animations opened again: every frame of the clip, in the size of the pictures, at the rate asked for."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

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
    found = pictures(num_tokens)
    assert len(found) == 6
    (shape,) = {picture.shape for picture in found}
    assert shape[0] % 2 == shape[1] % 2 == 0
    assert shape[1] > 2 * PANEL
    panels = [picture[44:] for picture in found]  # below the header, which counts the frames
    assert all((panel == panels[0]).all() for panel in panels[:3])
    assert all((panel == panels[3]).all() for panel in panels[3:])
    assert (panels[0] != panels[3]).any()


def test_the_panel_of_a_token_is_hot_where_its_map_is() -> None:
    first, *_ = pictures(2)
    panel = first[44 + 18 :][: round(PANEL * 24 / 33), 6 + PANEL + 6 :][:, :PANEL].astype(int)
    heat = panel[..., 0] - panel[..., 2]  # yellow and orange: much red, little blue
    half_h, half_w = heat.shape[0] // 2, heat.shape[1] // 2
    assert heat[: half_h // 2, : half_w // 2].mean() > 50 + heat[half_h:, half_w:].mean()


def test_gif_opens_again_with_every_frame(tmp_path: Path) -> None:
    found = pictures(2)
    write_gif(found, tmp_path / "maps.gif", RATE)
    with Image.open(tmp_path / "maps.gif") as gif:
        assert (gif.n_frames, gif.size) == (6, found[0].shape[1::-1])
        assert (gif.info["duration"], gif.info["loop"]) == (80, 0)
        for number, picture in enumerate(found):
            gif.seek(number)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - picture).mean() < 6


def test_mp4_opens_again_with_every_frame(tmp_path: Path) -> None:
    found = pictures(2)
    write_mp4(found, tmp_path / "maps.mp4", RATE)
    with av.open(str(tmp_path / "maps.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == RATE
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 6
    for frame, picture in zip(frames, found, strict=True):
        assert np.abs(frame.astype(int) - picture).mean() < 12


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    bad = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.float64)]
    with pytest.raises(ValueError, match="dtype `uint8`"):
        write_mp4(bad, tmp_path / "maps.mp4", RATE)
    assert not list(tmp_path.iterdir())
