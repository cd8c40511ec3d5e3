"""Generated videos to time decoders on: sizes and groups of pictures as data sets have them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from vidtl.runtime.files import replacing
from vidtl.runtime.seeding import generator


class MadeVideo(NamedTuple):
    """One kind of file, H.264 by x264 with its defaults but for what is said here."""

    name: str
    width: int
    height: int
    seconds: int
    gop: int
    """Frames between key frames at most."""
    crf: int


MADE_VIDEOS = (
    MadeVideo("340x256_gop250", 340, 256, 10, 250, 23),  # Kinetics as most copies of it are
    MadeVideo("340x256_gop12", 340, 256, 10, 12, 23),
    MadeVideo("1280x720_gop250", 1280, 720, 10, 250, 25),  # Kinetics as it was downloaded
    MadeVideo("854x480_gop250", 854, 480, 30, 250, 27),  # Charades at 480 lines
)

FPS = 30


def make_videos(folder: Path) -> list[Path]:
    """Write the files that are not there yet; the pictures are the same on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_make(folder / f"{kind.name}.mp4", kind) for kind in MADE_VIDEOS]


def _make(path: Path, kind: MadeVideo) -> Path:
    if not path.exists():
        with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            options = {"preset": "medium", "crf": str(kind.crf), "g": str(kind.gop), "threads": "1"}
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = kind.width, kind.height, "yuv420p"
            for picture in _pictures(kind):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return path


def _pictures(kind: MadeVideo) -> Iterator[np.ndarray]:
    """A camera that pans over a textured wall, three things that move before it, and the noise of a sensor."""
    rng = generator(0, kind.width, kind.height)
    wall = _texture(rng, 2 * kind.height, 2 * kind.width)
    things = [_texture(rng, kind.height // 4, kind.height // 4) for _ in range(3)]
    noise = rng.normal(0, 2.0, (8, kind.height, kind.width, 1))
    for number in range(kind.seconds * FPS):
        turn = 2 * np.pi * number / (8 * FPS)
        top = round((1 + np.sin(turn)) * kind.height / 2)
        left = round((1 + np.cos(0.7 * turn)) * kind.width / 2)
        picture = wall[top : top + kind.height, left : left + kind.width].copy()
        for index, thing in enumerate(things):
            side = len(thing)
            y = round((1 + np.sin((2 + index) * turn)) * (kind.height - side) / 2)
            x = round((1 + np.cos((3 - index) * turn + index)) * (kind.width - side) / 2)
            picture[y : y + side, x : x + side] = thing
        yield np.clip(picture + noise[number % len(noise)], 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Colour noise whose strength falls with its frequency, as in photographs: float32 [height, width, 3] in 0..255."""
    texture = np.full((height, width, 3), 128.0, dtype=np.float32)
    for octave in range(6):
        cells = 4 * 2**octave
        grid = rng.normal(0, 45 / 1.5**octave, (cells, cells, 3)).astype(np.float32)
        texture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(texture, 0, 255)
