"""Render clips whose class is a relation between moving objects: the color of the window that drifts as the leader.

Windows stay in cells of a grid: a white one (the leader) and one of each color. The texture of exactly one color drifts
in the direction of the leader's; some of the others drift in other directions, the rest stand still. A single frame has
no information about the class: all colors are always there, and the phases of the textures, a wave along x plus one
along y, are uniform. Cells, directions, speed and the number of drifting textures do not depend on the class.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

COLORS = ("red", "green", "blue", "yellow", "magenta")
"""Class names in the order of their numbers."""

GRID, CELL = 3, 16
"""Cells along each side, and the pixels of each side of a cell, which is also the length of the waves."""

SIDE = GRID * CELL

_RGB = np.array([[1, 1, 1], [1, 0.15, 0.15], [0.15, 1, 0.15], [0.2, 0.3, 1], [1, 1, 0.1], [1, 0.15, 1]])
_DIRECTIONS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
_STILL = 4
_SPEED = (3.2, 4.8)  # pixels a frame: about a quarter of a wave


def render_leader(rng: Generator, num_frames: int, label: int) -> NDArray[np.uint8]:
    """Render RGB frames uint8 [T, SIDE, SIDE, 3]. `rng` draws the same numbers for all labels."""
    cells = rng.permutation(GRID * GRID)[: len(_RGB)]
    leader = rng.integers(_STILL)
    others = (leader + rng.integers(1, _STILL, len(COLORS))) % _STILL
    others[rng.permutation(len(COLORS)) >= rng.integers(len(COLORS))] = _STILL
    others[label] = leader
    drifts = rng.uniform(*_SPEED) * _DIRECTIONS[[leader, *others]]
    moved = rng.uniform(0, CELL, (len(_RGB), 1, 2)) + np.arange(num_frames)[:, None] * drifts[:, None]
    waves = 0.25 * np.cos(2 * np.pi / CELL * (np.arange(CELL) - moved[..., None]))  # windows, frames, x or y, pixels
    textures = 0.5 + waves[:, :, 0, None, :] + waves[:, :, 1, :, None]
    frames = np.zeros((num_frames, GRID, CELL, GRID, CELL, 3))
    for cell, texture, color in zip(cells, textures, _RGB, strict=True):
        frames[:, cell // GRID, :, cell % GRID] = texture[..., None] * color
    return np.asarray(np.rint(frames.reshape(num_frames, SIDE, SIDE, 3) * 255).astype(np.uint8))
