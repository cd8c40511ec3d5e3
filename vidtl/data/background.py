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

    A frame's weight is its mean absolute difference to those before and after it, so that someone who lies still for
    minutes counts little. It is the median at equal steps of the cumulative motion.
    """
    count = min(len(video.times_s), MOST_FRAMES)
    indices = np.searchsorted(video.times_s, np.linspace(video.times_s[0], video.times_s[-1], count))
    whole = Box(0, 0, video.height, video.width)
    (frames,) = video.read([View(indices, whole)], clip.frame_size, data.pixel_format)
    changes = np.zeros(count + 1)
    changes[1:-1] = [np.abs(np.subtract(*pair, dtype=np.int16)).mean() for pair in pairwise(frames)]
    clock = np.cumsum(changes[:-1] + changes[1:])
    chosen = np.searchsorted(clock, (np.arange(count) + 0.5) / count * clock[-1])
    return np.asarray(np.partition(frames[chosen], count // 2, axis=0)[count // 2])


class Backgrounds:
    """Backgrounds of the files that a worker has read, the newest of them."""

    def __init__(self, clip: ClipConfig, data: DataConfig) -> None:
        self.clip, self.data = clip, data
        self._kept: dict[str, np.ndarray] = {}

    def append(self, path: str, video: VideoReader, read: Callable[..., np.ndarray], *arguments: object) -> np.ndarray:
        """Return the clips [V, T, ...] of `read`, with `clip.background` [V, T + 1, ...]; it is read before them."""
        if not self.clip.background:
            return read(*arguments)
        background = self._kept.get(path)
        if background is None:
            background = self._kept[path] = find_background(video, self.clip, self.data)
            if len(self._kept) * background.nbytes > _KEPT_BYTES:
                self._kept.pop(next(iter(self._kept)))
        pixels = read(*arguments)
        last = np.broadcast_to(background, (len(pixels), 1, *pixels.shape[2:]))
        return np.concatenate([pixels, last], axis=1)
