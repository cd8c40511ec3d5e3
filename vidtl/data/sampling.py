"""Frames and crop box of a training clip: pure arithmetic, no file is opened.

Frame numbers count the M available frames of a video: all of them, those of a segment, or those that `resample_indices`
keeps. Boxes are in source pixels, so that resize-then-crop of the papers is one resize of one crop. Random functions
draw the same number of floats for every video, in the order given in their docstrings.
"""

from typing import Literal

import numpy as np

from vidtl.config import AugmentationConfig, ClipConfig
from vidtl.video import Box

ShortVideo = Literal["loop", "hold"]
Range = tuple[float, float]

_CLOCK_TOLERANCE_S = 0.002  # some containers store times in whole milliseconds
_TRIES = 10  # of a box of random area and aspect, as in torchvision's RandomResizedCrop and timm's RandomErasing

# TSN's crops: sides as shares of the shorter side of the frame; places in quarters of the space below and to the right,
# corners and center, then those between.
_SCALES = (1.0, 0.875, 0.75, 0.66)
_PLACES = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]


def span_indices(start: int, num_frames: int, stride: int, num_available: int, short_video: ShortVideo) -> np.ndarray:
    """Return T frames from `start` on, `stride` apart: int64 [T]; past the end, "loop" restarts, "hold" repeats."""
    indices = start + np.arange(num_frames, dtype=np.int64) * stride
    return indices % num_available if short_video == "loop" else indices.clip(0, num_available - 1)


def train_indices(num_available: int, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw the frames of a training clip by `clip.sampling`: int64 [T].

    A span: every start at which it fits is equally likely. A video that is too short starts at frame 0 with "hold", and
    anywhere with "loop" (DMVR `sample_sequence`, used by ViViT). Draws: start.

    Segments: one random frame of each of T equal ones, rising. TSN's sampling, with segments of equal real length, so
    that the end of the video is used too; equal to TSN's and VideoMAE's rule if T divides the number of frames. A video
    of fewer frames repeats some. Draws: T places.
    """
    if clip.sampling == "segments":
        places = np.arange(clip.num_frames) + rng.random(clip.num_frames)
        return (places * (num_available / clip.num_frames)).astype(np.int64).clip(0, num_available - 1)
    last_start = num_available - 1 - (clip.num_frames - 1) * clip.stride
    if last_start < 0:
        last_start = num_available - 1 if clip.short_video == "loop" else 0
    start = _draw_integer(last_start, rng)
    return span_indices(start, clip.num_frames, clip.stride, num_available, clip.short_video)


def segment_indices(num_available: int, num_frames: int, place: float) -> np.ndarray:
    """Return the frame at `place` (0 is the start, 0.5 the center) of each of `num_frames` segments: int64 [T].

    Truncated to integers as in mmaction2 (`SampleFrames`, test mode: centers) and VideoMAE (`ssv2.py`, test mode).
    """
    length = num_available / num_frames
    return (length * place + length * np.arange(num_frames)).astype(np.int64).clip(0, num_available - 1)


def resample_indices(times_s: np.ndarray, target_fps: float) -> np.ndarray:
    """Return the frames that a player at `target_fps` (above 0) shows, repeated or dropped, never blended: int64 [M].

    Frame k of the result is the last one whose time, in `times_s` float64 [N] rising from 0, is at most k / target_fps.
    The video ends one mean frame interval after its last frame.
    """
    num_frames = len(times_s)
    period_s = times_s[-1] / (num_frames - 1) if num_frames > 1 else 0.0
    num_shown = max(int(np.ceil((times_s[-1] + period_s - _CLOCK_TOLERANCE_S) * target_fps)), 1)
    clock_s = np.arange(num_shown) / target_fps
    shown = np.searchsorted(times_s, clock_s + _CLOCK_TOLERANCE_S, side="right") - 1
    return shown.clip(0).astype(np.int64)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Resize the shorter side to `short_side` and return (height, width); the longer one is rounded down (DMVR)."""
    if height < width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def box_of_crop(source: tuple[int, int], resized: tuple[int, int], crop: Box) -> Box:
    """Convert a crop of the resized frame to source pixels; `source` and `resized` are (height, width) of the frame."""
    top, bottom = _edges(crop.top, crop.height, source[0], resized[0])
    left, right = _edges(crop.left, crop.width, source[1], resized[1])
    return Box(top, left, bottom - top, right - left)


def _edges(start: int, length: int, source: int, resized: int) -> tuple[int, int]:
    first = min(round(start * source / resized), source - 1)
    last = round((start + length) * source / resized)
    return first, min(max(last, first + 1), source)


def train_box(
    height: int, width: int, augmentation: AugmentationConfig, clip: ClipConfig, rng: np.random.Generator
) -> Box:
    """Draw the crop of a training clip by `augmentation.crop`; see the functions below."""
    if augmentation.crop == "jitter":
        return jitter_box(height, width, augmentation, clip, rng)
    if augmentation.crop == "random_resized":
        return random_resized_box(height, width, augmentation, rng)
    if augmentation.crop == "multi_scale":
        return multi_scale_box(height, width, clip, rng)
    resized = resized_size(height, width, clip.short_side) if clip.short_side else clip.frame_size
    crop_height, crop_width = clip.frame_size
    top, left = (resized[0] - crop_height + 1) // 2, (resized[1] - crop_width + 1) // 2
    return box_of_crop((height, width), resized, Box(top, left, crop_height, crop_width))


def jitter_box(
    height: int, width: int, augmentation: AugmentationConfig, clip: ClipConfig, rng: np.random.Generator
) -> Box:
    """Draw a random scale, then a random crop (ViViT, appendix; scenic's scale jitter).

    The frame is resized to `clip.short_side`, height and width are multiplied by two independent factors from
    `augmentation.jitter_range`, raised until the crop fits, and a crop of `clip.frame_size` is taken anywhere. Draws:
    factor of the height, of the width, top, left.
    """
    resizes = clip.short_side / min(height, width) * rng.uniform(*augmentation.jitter_range, size=2)
    box_height = _clamped(clip.frame_size[0] / resizes[0], height)
    box_width = _clamped(clip.frame_size[1] / resizes[1], width)
    return _place(height, width, box_height, box_width, rng)


def random_resized_box(height: int, width: int, augmentation: AugmentationConfig, rng: np.random.Generator) -> Box:
    """Draw Inception's crop (`draw_box`; torchvision's RandomResizedCrop), or else the largest centered one."""
    if box := draw_box(height, width, augmentation.area_range, augmentation.aspect_range, rng):
        return box
    narrowest, widest = augmentation.aspect_range
    box_height = _clamped(width / narrowest, height)
    box_width = _clamped(height * widest, width)
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def draw_box(height: int, width: int, area_range: Range, aspect_range: Range, rng: np.random.Generator) -> Box | None:
    """Draw ten shares of the area, ten logarithms of width / height, top, left; return the first box that fits."""
    areas = rng.uniform(*area_range, size=_TRIES) * height * width
    aspects = np.exp(rng.uniform(np.log(aspect_range[0]), np.log(aspect_range[1]), size=_TRIES))
    heights, widths = np.round(np.sqrt(areas / aspects)), np.round(np.sqrt(areas * aspects))
    fits = np.flatnonzero((heights >= 1) & (widths >= 1) & (heights <= height) & (widths <= width))
    if len(fits):
        return _place(height, width, int(heights[fits[0]]), int(widths[fits[0]]), rng)
    rng.random(2)  # the draws of top and left
    return None


def multi_scale_box(height: int, width: int, clip: ClipConfig, rng: np.random.Generator) -> Box:
    """Draw a box of TSN's sizes at one of thirteen places (`MultiScaleCrop` of mmaction2).

    In the frame resized to `clip.short_side`, height and width are 1, 0.875, 0.75 or 0.66 of that side, at most one
    step apart; all places are equally likely. Draws: pair of sides, place.
    """
    resized = resized_size(height, width, clip.short_side)
    sides = [int(clip.short_side * scale) for scale in _SCALES]
    pairs = [(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1]
    crop_height, crop_width = pairs[_draw_integer(len(pairs) - 1, rng)]
    down, right = _PLACES[_draw_integer(len(_PLACES) - 1, rng)]
    top, left = (resized[0] - crop_height) // 4 * down, (resized[1] - crop_width) // 4 * right
    return box_of_crop((height, width), resized, Box(top, left, crop_height, crop_width))


def _place(height: int, width: int, box_height: int, box_width: int, rng: np.random.Generator) -> Box:
    top = _draw_integer(height - box_height, rng)
    left = _draw_integer(width - box_width, rng)
    return Box(top, left, box_height, box_width)


def _draw_integer(highest: int, rng: np.random.Generator) -> int:
    """Draw 0 to `highest` from exactly one float of the stream; `Generator.integers` takes none or several."""
    return min(int(rng.random() * (highest + 1)), highest)


def _clamped(length: float, limit: int) -> int:
    return min(max(round(length), 1), limit)
