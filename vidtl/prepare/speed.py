"""How much faster clips come out of the copies than out of the originals."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidtl.data.manifest_entry import Entry
from vidtl.video import Box, View, open_video

NUM_FRAMES, STRIDE, FRAME_SIZE = 32, 2, (224, 224)
"""The clip that is timed: as long as most models' and cropped to nothing."""

_ROUNDS = 3


class Pair(NamedTuple):
    """An original and its copy, each as a root and what its manifest knows."""

    original: tuple[Path, Entry]
    copy: tuple[Path, Entry]


class Speed(NamedTuple):
    """Clips per CPU second."""

    originals: float
    copies: float
    num_videos: int

    @property
    def ratio(self) -> float:
        """How many times faster the copies are."""
        return self.copies / self.originals


def measure_speed(pairs: Sequence[Pair]) -> Speed:
    """Decode the same clip of each original and of its copy in turns; CPU time, so that other work disturbs little."""
    rounds = []
    for number in range(_ROUNDS + 1):
        seconds = np.zeros(2)
        for pair in pairs:
            for side, (root, entry) in enumerate(pair):
                seconds[side] += _clip_s(root, entry, seed=number)
        rounds.append(seconds)
    # The first round pays for imports and the disk's cache.
    originals, copies = np.median(rounds[1:], axis=0)
    return Speed(len(pairs) / float(originals), len(pairs) / float(copies), len(pairs))


def _clip_s(root: Path, entry: Entry, seed: int) -> float:
    span = (NUM_FRAMES - 1) * STRIDE + 1
    first = int(np.random.default_rng(seed).integers(max(1, entry.num_frames - span + 1)))
    indices = np.minimum(first + STRIDE * np.arange(NUM_FRAMES), entry.num_frames - 1)
    start = time.process_time()
    with closing(open_video(root / entry.path, "pyav", root, scanned=entry.scanned())) as video:
        video.read([View(indices, Box(0, 0, video.height, video.width))], FRAME_SIZE, "planar")
    return time.process_time() - start
