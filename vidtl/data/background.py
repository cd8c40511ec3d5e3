"""Backgrounds of the files of fixed cameras, for `clip.background`."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from vidtl.config import ClipConfig, DataConfig
from vidtl.video import Box, VideoReader, View

MOST_FRAMES = 200  # of a file that are read for its background
_KEPT_BYTES = 2**26  # of backgrounds, in each worker


def find_background(video: VideoReader, clip: ClipConfig, data: DataConfig) -> np.ndarray:
    """Compute the median of up to 200 frames at equal steps of time, weighted by motion: one frame as `read` has it.

    The weight of a frame is the mean absolute difference to those before and after it, so that a person who lies still
    for minutes counts no more than one who walks. It is the median at equal steps of the cumulative motion.
    """
    count = min(len(video.times_s), MOST_FRAMES)
    indices = np.searchsorted(video.times_s, np.linspace(video.times_s[0], video.times_s[-1], count))
    view = View(indices.clip(max=len(video.times_s) - 1), Box(0, 0, video.height, video.width))
    (frames,) = video.read([view], clip.frame_size, data.pixel_format)
    changes = np.zeros(count + 1)
    changes[1:-1] = [np.abs(np.subtract(*pair, dtype=np.int16)).mean() for pair in pairwise(frames)]
    clock = np.cumsum(changes[:-1] + changes[1:])
    chosen = np.searchsorted(clock, (np.arange(count) + 0.5) / count * clock[-1])
    background: np.ndarray = np.partition(frames[chosen], count // 2, axis=0)[count // 2]
    return background


class Backgrounds:
    """Backgrounds of the files that a worker has read, the newest of them."""

    def __init__(self, clip: ClipConfig, data: DataConfig) -> None:
        self.clip, self.data = clip, data
        self._kept: dict[str, np.ndarray] = {}

    def append(self, path: str, video: VideoReader, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the clips [V, T, ...] of a file that `read` decodes, with `clip.background` as [V, T + 1, ...].

        The background comes first, because a pass over the file may be under way afterwards.
        """
        if not self.clip.background:
            return read()
        if path not in self._kept:
            background = find_background(video, self.clip, self.data)
            if len(self._kept) * background.nbytes >= _KEPT_BYTES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[path] = background
        pixels = read()
        last = np.broadcast_to(self._kept[path], (len(pixels), 1, *pixels.shape[2:]))
        return np.concatenate([pixels, last], axis=1)
