"""Which frames and which part of them a clip takes: pure arithmetic, no file is opened."""

from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in pixels of the displayed frame."""

    top: int
    left: int
    height: int
    width: int
