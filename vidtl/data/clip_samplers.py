"""Where a training clip's frames come from, and pytorchvideo's clip samplers as such a source.

A rule takes the times of the available frames and returns the numbers of those that a clip shows. `clip.sampling`
names one; `TrainLoader(..., frame_rule=sampler_rule(sampler))` takes any `ClipSampler` of pytorchvideo instead.

pytorchvideo's samplers answer in seconds, draw from Python's global generator and count clips inside themselves. Here
each clip asks a fresh copy, with the global generator seeded from the clip's own stream and then put back, so that
neither the number of workers nor an interruption changes a clip.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from vidtl.config import ClipConfig
from vidtl.data.sampling import float32_linspace, random_segment_indices, train_indices

if TYPE_CHECKING:
    from pytorchvideo.data.clip_sampling import ClipSampler

FrameRule = Callable[[np.ndarray, ClipConfig, np.random.Generator], np.ndarray]
"""(times of the M available frames in seconds from the first, clip, generator) -> int64 [T] in 0 .. M - 1"""

# Rate that pytorchvideo's recipes count frames in.
_PYTORCHVIDEO_FPS = 30

# Times and ends of spans are sums of rounded numbers; a frame that is this close to an end lies on it.
_ROUNDING_S = 1e-6


def random_span(times_s: np.ndarray, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """`sampling.train_indices`: consecutive frames from a random start."""
    return train_indices(len(times_s), clip.num_frames, clip.stride, rng, clip.short_video)


def random_segments(times_s: np.ndarray, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """`sampling.random_segment_indices`: one random frame of each part of the video."""
    return random_segment_indices(len(times_s), clip.num_frames, rng)


def pytorchvideo_random(times_s: np.ndarray, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """pytorchvideo's `RandomClipSampler` with `UniformTemporalSubsample`."""
    from pytorchvideo.data.clip_sampling import RandomClipSampler  # here, because it takes seconds to import

    return sampler_rule(RandomClipSampler(clip_seconds(clip)))(times_s, clip, rng)


FRAME_RULES: dict[str, FrameRule] = {
    "random_span": random_span,
    "segments": random_segments,
    "pytorchvideo_random": pytorchvideo_random,
}
"""The values of `clip.sampling`."""


def sampler_rule(sampler: "ClipSampler") -> FrameRule:
    """Clips whose spans a `ClipSampler` of pytorchvideo gives: random, uniform, constant_clips_per_video, random_multi.

    Of the spans that it gives for one video, each clip takes one at random.
    """

    def rule(times_s: np.ndarray, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
        with _seeded_python(rng):
            spans = sampler_spans(sampler, video_seconds(times_s))
        start_s, end_s = spans[int(rng.integers(len(spans)))]
        return frames_of_span(times_s, start_s, end_s, clip.num_frames)

    return rule


def sampler_spans(sampler: "ClipSampler", duration_s: float) -> list[tuple[float, float]]:
    """Start and end in seconds of all clips that a sampler takes from one video; the sampler stays as it was."""
    sampler = deepcopy(sampler)
    sampler.reset()
    spans: list[tuple[float, float]] = []
    last = False
    while not last:
        info: Any = sampler(spans[-1][1] if spans else 0.0, duration_s, {})
        starts, ends, lasts = info.clip_start_sec, info.clip_end_sec, info.is_last_clip
        if not isinstance(starts, list):
            starts, ends, lasts = [starts], [ends], [lasts]
        spans += [(float(start), float(end)) for start, end in zip(starts, ends, strict=True)]
        last = bool(lasts[-1])
    return spans


def frames_of_span(times_s: np.ndarray, start_s: float, end_s: float, num_frames: int) -> np.ndarray:
    """`num_frames` frames, evenly spread over those with start <= time < end: int64 [T], some repeated where there are
    fewer (pytorchvideo `UniformTemporalSubsample`); the frame on screen at the start where there are none.
    """
    inside = np.flatnonzero((times_s >= start_s - _ROUNDING_S) & (times_s < end_s - _ROUNDING_S))
    if len(inside) == 0:
        inside = np.array([max(int(np.searchsorted(times_s, start_s + _ROUNDING_S, side="right")) - 1, 0)])
    places = float32_linspace(0, len(inside) - 1, num_frames).clip(0, len(inside) - 1)
    frames: np.ndarray = inside[places.astype(np.int64)]
    return frames


def evenly_timed_clips(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Starts k * (duration - span) / clips, in seconds (pytorchvideo `ConstantClipsPerVideoSampler`)."""
    from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler

    times_s = np.arange(num_available) / fps
    spans = sampler_spans(ConstantClipsPerVideoSampler(clip_seconds(clip), num_clips), video_seconds(times_s))
    return np.stack([frames_of_span(times_s, start_s, end_s, clip.num_frames) for start_s, end_s in spans])


def clip_seconds(clip: ClipConfig) -> float:
    """Length of a clip in pytorchvideo's recipes: frames x stride / frame rate."""
    return clip.num_frames * clip.stride / (clip.target_fps or _PYTORCHVIDEO_FPS)


def video_seconds(times_s: np.ndarray) -> float:
    """Length of a video that ends one mean frame distance after its last frame."""
    return float(times_s[-1] * len(times_s) / max(len(times_s) - 1, 1))


@contextmanager
def _seeded_python(rng: np.random.Generator) -> Iterator[None]:
    """Python's global generator, seeded from a clip's stream while the block lasts."""
    before = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(before)
