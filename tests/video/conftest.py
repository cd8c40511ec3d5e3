"""Helpers of the tests of decoding."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.refusals import assert_refusal
from vidtl.video import Box, UnreadableVideo, VideoReader, View, open_video


def whole(video: VideoReader) -> Box:
    return Box(0, 0, video.height, video.width)


def view_of(video: VideoReader, numbers: Sequence[int] | np.ndarray) -> View:
    """An inner part of frames, so that crops and seeks are tested together."""
    box = Box(video.height // 10, video.width // 7, max(2, video.height // 2), max(2, video.width // 2))
    return View(np.array(numbers), box)


def read(path: Any, numbers: Sequence[int] = (0,), size: Any = None, form: Any = "rgb", **options: Any) -> np.ndarray:
    """Whole frames [T, ...] of a new reader, in their own size by default."""
    with open_video(path, **options) as video:
        box = whole(video)
        return video.read([View(np.array(numbers), box)], size or (box.height, box.width), form)[0]


@contextmanager
def unreadable(*parts: object) -> Iterator[None]:
    """Expect a one-line UnreadableVideo that names all `parts`."""
    with pytest.raises(UnreadableVideo) as caught:
        yield
    assert_refusal(str(caught.value), *parts)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800
