"""Render clips whose class is a relation between moving objects: which window drifts as the leader, and where to.

Windows stay in cells of a grid: a white one (the leader) and one to five of as many colors. The texture of exactly one
color drifts in the direction of the leader's, the others in other directions. A single frame tells which colors are
there, no more: the phases of the textures, a wave along x plus one along y, are uniform. Cells, speed and the number of
windows do not depend on the class; the more of them, the more a model must compare.
"""

from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

_COLORS, _DIRECTIONS = ("red", "green", "blue", "yellow", "magenta"), ("left", "right", "up", "down")
FOLLOWERS = tuple(map(" ".join, product(_COLORS, _DIRECTIONS)))
"""Class names in the order of their numbers: color and direction of the window that drifts as the leader."""

GRID, CELL = 3, 16
"""Cells along each side, and the pixels of each side of a cell, which is also the length of the waves."""

SIDE = GRID * CELL

_RGB = np.array([[1, 1, 1], [1, 0.15, 0.15], [0.15, 1, 0.15], [0.2, 0.3, 1], [1, 1, 0.1], [1, 0.15, 1]])
_STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # change of x and y
_SPEED = (3.2, 4.8)  # pixels a frame: about a quarter of a wave


def render_leader(rng: Generator, num_frames: int, label: int) -> NDArray[np.uint8]:
    """Render RGB frames uint8 [T, SIDE, SIDE, 3]. `rng` draws the same numbers for all labels."""
    cells = rng.permutation(GRID * GRID)[: len(_RGB)]
    color, leader = divmod(label, len(_DIRECTIONS))
    directions = (leader + rng.integers(1, len(_DIRECTIONS), len(_COLORS))) % len(_DIRECTIONS)
    directions[color] = leader
    order, others = rng.permutation(len(_COLORS)), rng.integers(len(_COLORS))
    windows = [0, 1 + color, *(1 + order[order != color][:others])]  # the leader is the first
    drifts = rng.uniform(*_SPEED) * _STEPS[[leader, *directions]]
    moved = rng.uniform(0, CELL, (len(_RGB), 1, 2)) + np.arange(num_frames)[:, None] * drifts[:, None]
    waves = 0.25 * np.cos(2 * np.pi / CELL * (np.arange(CELL) - moved[..., None]))  # windows, frames, x or y, pixels
    textures = 0.5 + waves[:, :, 0, None, :] + waves[:, :, 1, :, None]
    frames = np.zeros((num_frames, GRID, CELL, GRID, CELL, 3))
    for window in windows:
        row, column = divmod(cells[window], GRID)
        frames[:, row, :, column] = textures[window][..., None] * _RGB[window]
    return np.asarray(np.rint(frames.reshape(num_frames, SIDE, SIDE, 3) * 255).astype(np.uint8))
