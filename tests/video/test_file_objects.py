"""Seekable file objects in place of paths: the same frames, and the same refusals."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from vidtl.video import Box, UnreadableVideo, View, open_video


@pytest.mark.parametrize(
    "name",
    [
        "decord__video_0.mov",
        "ExoPlayer__bear-vp9.webm",
        "PaddleVideo__example.avi",
        "media__sample_rotate_and_reflect.mp4",
    ],
)
def test_frames_equal_those_of_the_path(shared_data: Path, name: str) -> None:
    path = shared_data / "videos" / name
    with path.open("rb") as file, open_video(file) as video, open_video(path) as reference:
        assert (video.path, video.height, video.width, video.color) == (
            path, reference.height, reference.width, reference.color
        )  # fmt: skip
        assert np.array_equal(video.times_s, reference.times_s)
        last = len(video.times_s) - 1
        views = [View(np.array(numbers), Box(0, 0, 48, 64)) for numbers in ([last, 0], [last // 2, last // 3])]
        for _ in range(2):  # the second read seeks back
            assert np.array_equal(video.read(views, (32, 32), "planar"), reference.read(views, (32, 32), "planar"))
        scanned = video.source.scanned()
        video.close()
        with open_video(file, scanned=scanned) as again:
            assert np.array_equal(again.read(views, (32, 32), "rgb"), reference.read(views, (32, 32), "rgb"))


def test_bytes_in_memory(shared_data: Path) -> None:
    path = shared_data / "videos" / "decord__video_0.mov"
    with open_video(BytesIO(path.read_bytes())) as video, open_video(path) as reference:
        assert np.array_equal(video.times_s, reference.times_s)
    with pytest.raises(UnreadableVideo, match="<file object>: not a video container"):
        open_video(BytesIO(b"#EXTM3U\nhttp://localhost/a.ts\n"))
    with pytest.raises(UnreadableVideo, match="<file object>: the file is empty"):
        open_video(BytesIO())
    with refused("data.decoder", "'decord'", "'pyav'"):
        open_video(BytesIO(path.read_bytes()), "decord")


def test_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file, open_video(file) as image:
        assert np.array_equal(
            image.read([View(np.zeros(1, np.int64), Box(0, 0, 24, 40))], (24, 40), "rgb")[0, 0], pixels
        )
