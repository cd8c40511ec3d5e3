"""Render clips whose class depends on motion alone: textured patches that move, shake, grow or shrink together.

A single frame has no information about the class: the offset of the lattice of patches is uniform over its period,
their angle over the circle and the logarithm of their size over a fixed range, in every frame of every class. Steady
motion keeps these distributions uniform (the size is a sawtooth). Speeds, shapes, colors and backgrounds do not depend
on the class. The patches repeat, so that every crop shows some of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

MOTIONS = (
    *("moving left", "moving right", "moving up", "moving down"),
    *("shaking sideways", "shaking up and down", "growing", "shrinking"),
)
"""Class names in the order of their numbers."""

_DIRECTIONS = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]])
"""Sign of the change of x (right), y (down) and size for each motion; shaking starts so and alternates."""
_SHAKING = (4, 5)

_TRAVEL_SPEED = (0.4, 0.7)  # short sides per second: 2 to 4 pixels a frame at 72 pixels and 12 frames per second
_STROKE_S = (0.25, 0.4)  # one stroke of shaking: 3 to 5 frames
_SIZE_SPEED = (0.4, 0.7)  # size ranges per second: 2 to 4 per cent a frame
PERIOD = 0.75
"""Distance between neighboring patches in short sides."""
_SIZE_RANGE = (0.45, 0.9)  # diameter of a patch in periods
_PATCH, _OVERSAMPLING = 48, 4


@dataclass(frozen=True)
class Segment:
    """A motion from one frame to another; before and after, the patches are still."""

    motion: int
    first: int
    last: int


def render_clip(
    rng: Generator, height: int, width: int, fps: float, num_frames: int, segments: Sequence[Segment]
) -> NDArray[np.uint8]:
    """Render RGB frames uint8 [T, H, W, 3]: bright patches that move by `segments` on a dark still background.

    `rng` draws the same numbers for all segments, so that appearance and motion are independent.
    """
    states = _states(rng, height, width, fps, num_frames, segments)
    dark = rng.uniform(0.05, 0.3, 3) + 0.15 * (_texture(rng, height, width, cells=6) - 0.5)
    background = np.clip(dark, 0, 1).astype(np.float32)
    patch = _patch(rng)
    period = PERIOD * min(height, width)
    return np.stack([_frame(background, patch, state, period) for state in states])


def _states(
    rng: Generator, height: int, width: int, fps: float, num_frames: int, segments: Sequence[Segment]
) -> NDArray[np.float64]:
    """Return x and y in pixels, size, and angle in turns: float64 [T, 4].

    Every column is uniform in every frame, modulo (period, period, 1, 1).
    """
    short_side = min(height, width)
    periods = np.array([PERIOD * short_side, PERIOD * short_side, 1, 1])
    start = rng.uniform(size=4) * periods
    travel, stroke_s, size = (rng.uniform(*limits) for limits in (_TRAVEL_SPEED, _STROKE_S, _SIZE_SPEED))
    step, stroke = np.array([travel * short_side, travel * short_side, size]) / fps, stroke_s * fps
    frames = np.arange(num_frames, dtype=np.float64)
    moved = np.zeros((num_frames, 4))
    for segment in segments:
        steps: NDArray[np.float64] = np.clip(frames, segment.first, segment.last) - segment.first
        if segment.motion in _SHAKING:  # the direction is reversed after every stroke
            steps = stroke - np.abs(steps % (2 * stroke) - stroke)
        moved[:, :3] += steps[:, None] * step * _DIRECTIONS[segment.motion]
    return np.asarray((start + moved) % periods)


def _frame(
    background: NDArray[np.float32], patch: NDArray[np.float32], state: NDArray[np.float64], period: float
) -> NDArray[np.uint8]:
    """Render one frame: each pixel shows the patch of the nearest lattice point."""
    (height, width, _), (x, y, size, turns) = background.shape, state.tolist()
    scale = _PATCH / (period * _SIZE_RANGE[0] * (_SIZE_RANGE[1] / _SIZE_RANGE[0]) ** size)
    angle = 2 * math.pi * turns
    across = (np.arange(width) - x + period / 2) % period - period / 2
    down = ((np.arange(height) - y + period / 2) % period - period / 2)[:, None]
    columns = scale * (across * math.cos(angle) + down * math.sin(angle)) + _PATCH / 2
    rows = scale * (down * math.cos(angle) - across * math.sin(angle)) + _PATCH / 2
    layer = cv2.remap(patch, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    canvas = background * (1 - layer[..., 3:]) + layer[..., :3]
    return np.asarray(np.rint(canvas * 255).astype(np.uint8))


def _patch(rng: Generator) -> NDArray[np.float32]:
    """Draw an irregular two-colored shape without symmetry: RGB times alpha, and alpha, float32 [48, 48, 4]."""
    side = _PATCH * _OVERSAMPLING
    angles = 2 * math.pi * (np.arange(9) + rng.uniform(-0.3, 0.3, 9)) / 9
    radii = rng.uniform(0.5, 0.98, 9) * side / 2
    points = np.stack([side / 2 + radii * np.cos(angles), side / 2 + radii * np.sin(angles)], axis=1)
    mask = np.zeros((side, side), np.float32)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1.0)
    mask = cv2.resize(mask, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA)

    first = second = np.zeros(3)
    while np.linalg.norm(first - second) <= 0.3:  # two bright colors that differ clearly
        first, second = rng.uniform(0.35, 1, (2, 3))
    offset, direction = rng.uniform(-0.2, 0.2) * _PATCH, rng.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[:_PATCH, :_PATCH] - _PATCH / 2
    side_of_line = columns * math.cos(direction) + rows * math.sin(direction) - offset
    blend = np.clip(side_of_line / 2 + 0.5, 0, 1)[..., None]
    colors = first * blend + second * (1 - blend) + 0.3 * (_texture(rng, _PATCH, _PATCH, cells=5) - 0.5)
    return np.dstack([np.clip(colors, 0, 1) * mask[..., None], mask]).astype(np.float32)


def _texture(rng: Generator, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """Draw smooth random colors: float32 [H, W, 3] with mean 0.5, mostly in [0, 1]."""
    grid = rng.uniform(0, 1, (cells, cells, 3)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))
