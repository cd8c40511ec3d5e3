"""Helpers of the tests of decoding."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.refusals import assert_refusal
from vidtl.errors import UserError
from vidtl.video import Box, UnreadableVideo, VideoReader, View, open_video

# Frames of the best stream that decode (ffprobe -count_frames); headers may announce others.
NUM_FRAMES: dict[str, int] = json.loads(Path(__file__).with_name("num_frames.json").read_text())


def whole(video: VideoReader) -> Box:
    return Box(0, 0, video.height, video.width)


def view_of(video: VideoReader, numbers: Sequence[int] | np.ndarray) -> View:
    """An inner part of frames, so that crops and seeks are tested together."""
    box = Box(video.height // 10, video.width // 7, video.height // 4 * 2 or 2, video.width // 4 * 2 or 2)
    return View(np.array(numbers), box)


def read(path: Any, numbers: Sequence[int] = (0,), size: Any = None, form: Any = "rgb", **options: Any) -> np.ndarray:
    """Whole frames [T, ...] of a new reader, in their own size by default."""
    with open_video(path, **options) as video:
        box = whole(video)
        return video.read([View(np.array(numbers), box)], size or (box.height, box.width), form)[0]


def rgb_of(matrix: str, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """RGB [..., 3] by the equations of ITU-T H.273; luma and RGB from 0 to 1, chroma from -0.5 to 0.5."""
    red, blue = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1)


def skip_without(decoder: str, path: Any) -> None:
    try:
        open_video(path, decoder).close()
    except UserError as error:
        pytest.skip(str(error))


@contextmanager
def unreadable(*parts: object) -> Iterator[None]:
    """Expect a one-line UnreadableVideo that names all `parts`."""
    with pytest.raises(UnreadableVideo) as caught:
        yield
    assert_refusal(str(caught.value), *parts)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def equal_or_refused(path: Path, decoder: str, expected: np.ndarray) -> None:
    """Compare all frames in random order, and the last one alone, but for rounding; RGB libraries may refuse files."""
    numbers = np.append(np.random.default_rng(0).permutation(len(expected)), len(expected) - 1)
    try:
        parts = [read(path, part, decoder=decoder) for part in (numbers[:-1], numbers[-1:])]
        found = np.concatenate(parts).astype(int)
    except UserError as error:
        pytest.skip(str(error))
    except UnreadableVideo as error:
        if decoder == "pyav" or not any(name in error.reason for name in ("data.decoder pyav", "DECORDError")):
            raise
    else:
        assert [np.abs(expected - frame).mean((1, 2, 3)).argmin() for frame in found] == numbers.tolist()
        assert np.abs(found - expected[numbers]).mean() < (0.01 if decoder == "pyav" else 2.5)


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
