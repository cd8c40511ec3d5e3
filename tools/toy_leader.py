"""Render clips whose class is a relation between moving objects: which window drifts as the leader, and where to.

Windows stay in cells of a grid: a white one (the leader) and one of each color. The texture of exactly one color drifts
in the direction of the leader's; some of the others drift in other directions, the rest stand still. A single frame has
no information about the class: all colors are always there, and the phases of the textures, a wave along x plus one
along y, are uniform. Cells, speed and the number of drifting textures do not depend on the class.
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
_STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])  # change of x and y; the last one stands still
_SPEED = (3.2, 4.8)  # pixels a frame: about a quarter of a wave


def render_leader(rng: Generator, num_frames: int, label: int) -> NDArray[np.uint8]:
    """Render RGB frames uint8 [T, SIDE, SIDE, 3]. `rng` draws the same numbers for all labels."""
    cells = rng.permutation(GRID * GRID)[: len(_RGB)]
    color, leader = divmod(label, len(_DIRECTIONS))
    others = (leader + rng.integers(1, len(_DIRECTIONS), len(_COLORS))) % len(_DIRECTIONS)
    others[rng.permutation(len(_COLORS)) >= rng.integers(len(_COLORS))] = -1
    others[color] = leader
    drifts = rng.uniform(*_SPEED) * _STEPS[[leader, *others]]
    moved = rng.uniform(0, CELL, (len(_RGB), 1, 2)) + np.arange(num_frames)[:, None] * drifts[:, None]
    waves = 0.25 * np.cos(2 * np.pi / CELL * (np.arange(CELL) - moved[..., None]))  # windows, frames, x or y, pixels
    textures = 0.5 + waves[:, :, 0, None, :] + waves[:, :, 1, :, None]
    frames = np.zeros((num_frames, GRID, CELL, GRID, CELL, 3))
    for cell, texture, color in zip(cells, textures, _RGB, strict=True):
        frames[:, cell // GRID, :, cell % GRID] = texture[..., None] * color
    return np.asarray(np.rint(frames.reshape(num_frames, SIDE, SIDE, 3) * 255).astype(np.uint8))
