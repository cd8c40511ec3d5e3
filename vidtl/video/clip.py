"""Crop and resize decoded pictures into the output array, without a copy of a whole frame.

Axes: V views, T frames, H W pixels.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vidtl.video.orientation import Orientation
from vidtl.video.reader import Box, PixelFormat, View, clip_shape


class Geometry(NamedTuple):
    """Number, orientation and size of the frames of a file: the limits of a view."""

    num_frames: int
    orientation: Orientation
    height: int
    """As displayed, like `width`."""
    width: int


class ClipBuffer:
    """The uint8 array that `read` returns, filled frame by frame in any order.

    Pictures are as coded: planes Y, U, V of an I420 frame, or one RGB array, before any rotation. Planar boxes move to
    even edges, by at most one pixel each, because two luma pixels share one chroma pixel.
    """

    def __init__(
        self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat, geometry: Geometry
    ) -> None:
        # OpenCV's threads would compete with other workers, and its thread pool does not survive a fork. Set when a
        # clip is read, because an import must not change global state.
        cv2.setNumThreads(0)
        frames = len(views[0].indices)
        self.array = np.empty((len(views), *clip_shape(frames, frame_size, pixel_format)), dtype=np.uint8)
        self._frame_size = frame_size
        self._orientation = geometry.orientation
        self._places: dict[int, dict[Box, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for v, view in enumerate(views):
            _check_view(view, frames, geometry)
            box = geometry.orientation.coded_box(view.box, geometry.height, geometry.width)
            for t, index in enumerate(view.indices.tolist()):
                self._places[index][box].append((v, t))

    @property
    def needed(self) -> list[int]:
        """Frame numbers of all views, rising."""
        return sorted(self._places)

    def put(self, index: int, planes: Sequence[np.ndarray]) -> None:
        """Write a decoded picture to every place that shows it."""
        for box, places in self._places[index].items():
            first, *others = (self.array[place] for place in places)
            for part, plane, scale in zip(self._split(first), planes, (1, 2, 2), strict=False):
                self._fill(part, crop(plane, box, scale, even=len(planes) > 1))
            for other in others:
                other[...] = first

    def _split(self, frame: np.ndarray) -> list[np.ndarray]:
        """Return writable views of the Y, U and V parts of an I420 frame, or the RGB frame itself."""
        if frame.ndim == 3:
            return [frame]
        height, width = self._frame_size
        flat = frame.reshape(-1)
        luma, u, v = np.split(flat, [height * width, height * width * 5 // 4])
        half = (height // 2, width // 2)
        return [luma.reshape(height, width), u.reshape(half), v.reshape(half)]

    def _fill(self, part: np.ndarray, source: np.ndarray) -> None:
        if self._orientation == Orientation():
            resize_into(part, source)
            return
        height, width = self._orientation.displayed_size(*part.shape[:2])
        coded = np.empty((height, width, *part.shape[2:]), dtype=np.uint8)
        resize_into(coded, source)
        part[...] = self._orientation.apply(coded)


def _check_view(view: View, frames: int, geometry: Geometry) -> None:
    top, left, height, width = view.box
    if len(view.indices) != frames:
        raise IndexError(f"views of {frames} and of {len(view.indices)} frames in one read")
    if view.indices.min() < 0 or view.indices.max() >= geometry.num_frames:
        raise IndexError(f"frames {view.indices.min()} to {view.indices.max()} of a video of {geometry.num_frames}")
    if min(top, left) < 0 or min(height, width) < 1 or top + height > geometry.height or left + width > geometry.width:
        raise IndexError(f"{view.box} of frames of {geometry.height} x {geometry.width}")


def crop(plane: np.ndarray, box: Box, scale: int, even: bool) -> np.ndarray:
    """Return a view of the part of a plane inside a box of luma pixels; `scale` is 2 for chroma at half size."""
    top, left, height, width = box
    if even:
        # Edges to even numbers and at least 2 x 2; an odd last row or column has its own chroma pixel.
        top, left = top // 2 * 2, left // 2 * 2
        height, width = (height + 1) // 2 * 2, (width + 1) // 2 * 2
    rows = slice(top // scale, (top + height) // scale)
    columns = slice(left // scale, (left + width) // scale)
    return plane[rows, columns]


def resize_into(output: np.ndarray, source: np.ndarray) -> None:
    """Resize pixels [h, w, ...] into a contiguous [H, W, ...]: halve while the factor is 2 or more, then bilinear.

    Bilinear interpolation alone skips pixels from a factor of 2 on, which shimmers. Averages of 2 x 2 pixels cost a
    tenth of area interpolation and are closer to it than to plain bilinear.
    """
    height, width = output.shape[:2]
    while (down := (_halving(source.shape[0], height), _halving(source.shape[1], width))) != (1, 1):
        rows, columns = source.shape[0] // down[0], source.shape[1] // down[1]
        whole = source[: rows * down[0], : columns * down[1]]
        source = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    if source.shape == output.shape:
        output[...] = source
    else:
        cv2.resize(source, (width, height), dst=output, interpolation=cv2.INTER_LINEAR)


def _halving(source: int, target: int) -> int:
    return 2 if source >= 2 * target else 1
