"""Crop, resize and convert decoded pictures, in the tagged colors. Axes: V views, T frames, H W pixels."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from vidtl.video.reader import LUMA_WEIGHTS, Box, Color, Matrix, Orientation, PixelFormat, View, clip_shape

# AVColorSpace (ITU-T H.273 MatrixCoefficients) to our matrices; FCC and SMPTE 240M are nearest to 601 and 709.
_MATRICES: dict[int, Matrix] = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}

_SWS_MATRICES = {"bt601": 5, "bt709": 1, "bt2020": 9}  # swscale's numbers (SWS_CS_*)
LIMITED, FULL = 1, 2  # AVColorRange
_I420 = ("yuv420p", "yuvj420p")  # one layout; the second name implies full range


class Geometry(NamedTuple):
    """Number, orientation and displayed size of the frames of a file: the limits of a view."""

    num_frames: int
    orientation: Orientation
    height: int
    width: int


class ClipBuffer:
    """The uint8 array that `read` returns, filled frame by frame in any order.

    Pictures are as coded: planes Y, U, V of an I420 frame, or one RGB array, before any rotation. Planar boxes move to
    even edges, by at most one pixel each, because two luma pixels share one chroma pixel.
    """

    def __init__(
        self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat, geometry: Geometry
    ) -> None:
        # OpenCV's threads compete with other workers and do not survive a fork; an import must not change global state.
        cv2.setNumThreads(0)
        frames = len(views[0].indices)
        self.array = np.empty((len(views), *clip_shape(frames, frame_size, pixel_format)), dtype=np.uint8)
        self._frame_size, self._orientation = frame_size, geometry.orientation
        self._places: dict[int, dict[Box, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for v, view in enumerate(views):
            _check_view(view, frames, geometry)
            box = self._orientation.coded_box(view.box, geometry.height, geometry.width)
            for t, index in enumerate(view.indices.tolist()):
                self._places[index][box].append((v, t))

    @property
    def needed(self) -> list[int]:
        """Frame numbers of all views, rising."""
        return sorted(self._places)

    def put(self, index: int, planes: Sequence[np.ndarray]) -> None:
        """Write a decoded picture to all its places in the array."""
        for box, places in self._places[index].items():
            first, *others = (self.array[place] for place in places)
            for part, plane, scale in zip(self._split(first), planes, (1, 2, 2), strict=False):
                self._fill(part, _crop(plane, box, scale, even=len(planes) > 1))
            for other in others:
                other[...] = first

    def _split(self, frame: np.ndarray) -> list[np.ndarray]:
        """Return writable views of the Y, U and V parts of an I420 frame, or the RGB frame itself."""
        if frame.ndim == 3:
            return [frame]
        height, width = self._frame_size
        luma, u, v = np.split(frame.reshape(-1), [height * width, height * width * 5 // 4])
        half = (height // 2, width // 2)
        return [luma.reshape(height, width), u.reshape(half), v.reshape(half)]

    def _fill(self, part: np.ndarray, source: np.ndarray) -> None:
        if self._orientation == Orientation():
            _resize_into(part, source)
            return
        height, width = self._orientation.displayed_size(*part.shape[:2])
        coded = np.empty((height, width, *part.shape[2:]), dtype=np.uint8)
        _resize_into(coded, source)
        part[...] = self._orientation.apply(coded)


def _check_view(view: View, frames: int, geometry: Geometry) -> None:
    (top, left, height, width), numbers = view.box, view.indices
    if len(numbers) != frames or numbers.min() < 0 or numbers.max() >= geometry.num_frames:
        raise IndexError(f"frames {numbers} of a video of {geometry.num_frames}, in a read of {frames} each")
    if min(top, left) < 0 or min(height, width) < 1 or top + height > geometry.height or left + width > geometry.width:
        raise IndexError(f"{view.box} of frames of {geometry.height} x {geometry.width}")


def _crop(plane: np.ndarray, box: Box, scale: int, even: bool) -> np.ndarray:
    """Return a view of the part of a plane inside a box of luma pixels; `scale` is 2 for chroma at half size."""
    top, left, height, width = box
    if even:
        # Edges to even numbers and at least 2 x 2; an odd last row or column has its own chroma pixel.
        top, left, height, width = top // 2 * 2, left // 2 * 2, (height + 1) // 2 * 2, (width + 1) // 2 * 2
    return plane[top // scale : (top + height) // scale, left // scale : (left + width) // scale]


def _resize_into(output: np.ndarray, source: np.ndarray) -> None:
    """Resize pixels [h, w, ...] into a contiguous [H, W, ...]: halve while the factor is 2 or more, then bilinear.

    Bilinear interpolation alone skips pixels; area interpolation costs ten times as much as averages of 2 x 2 pixels.
    """
    height, width = output.shape[:2]
    while (down := (1 + (source.shape[0] >= 2 * height), 1 + (source.shape[1] >= 2 * width))) != (1, 1):
        rows, columns = source.shape[0] // down[0], source.shape[1] // down[1]
        whole = source[: rows * down[0], : columns * down[1]]
        source = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    if source.shape == output.shape:
        output[...] = source
    else:
        cv2.resize(source, (width, height), dst=output, interpolation=cv2.INTER_LINEAR)


def color_of(pixel_format: av.VideoFormat, matrix: int, color_range: int, default: Matrix) -> Color:
    """Return the color of a stream from its tags; without tags, the matrix is `default` and the range is limited."""
    if not _is_yuv(pixel_format):  # RGB and grayscale pictures become limited BT.601 as planes
        return Color("bt601", full_range=False)
    full_range = color_range == FULL or pixel_format.name.startswith("yuvj")
    return Color(_MATRICES.get(matrix, default), full_range)


def _is_yuv(pixel_format: av.VideoFormat) -> bool:
    return not (pixel_format.is_rgb or pixel_format.has_palette or len(pixel_format.components) < 3)


def change_matrix(rgb: np.ndarray, wrong: Matrix, right: Matrix) -> np.ndarray:
    """Correct uint8 RGB [..., W, 3] of the wrong YUV matrix (ITU-T H.273), except rounding and clipped colors."""
    if wrong == right:
        return rgb
    transform = np.linalg.solve(_rgb_to_yuv(right), _rgb_to_yuv(wrong))
    changed = cv2.transform(rgb.reshape(-1, *rgb.shape[-2:]), transform)
    return np.asarray(changed, dtype=np.uint8).reshape(rgb.shape)


def _rgb_to_yuv(matrix: Matrix) -> np.ndarray:
    red, blue = LUMA_WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    u = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    v = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.stack([luma, u, v])


class Converter:
    """Converter of decoded frames of one file to 8-bit planes or RGB of one size, before any rotation."""

    def __init__(self, size: tuple[int, int], color: Color, pixel_format: PixelFormat) -> None:
        self._size, self._color, self._planar = size, color, pixel_format == "planar"
        self._reformatter = VideoReformatter()

    def planes(self, frame: av.VideoFrame) -> list[np.ndarray]:
        """Return uint8 Y [H, W], U, V [ceil(H / 2), ceil(W / 2)], of I420 without copy, or one RGB array [H, W, 3]."""
        height, width = self._size
        if not self._planar:
            frame = self._reformat(frame, "rgb24")
            return [_pixels(frame.planes[0], height, 3 * width).reshape(height, width, 3)]
        if frame.format.name not in _I420 or (frame.height, frame.width) != self._size:
            frame = self._reformat(frame, "yuv420p")
        half = ((height + 1) // 2, (width + 1) // 2)
        return [_pixels(plane, *size) for plane, size in zip(frame.planes, (self._size, half, half), strict=True)]

    def _reformat(self, frame: av.VideoFrame, name: str) -> av.VideoFrame:
        matrix = _SWS_MATRICES[self._color.matrix]
        color_range = FULL if self._color.full_range else LIMITED
        yuv = _is_yuv(frame.format)
        return self._reformatter.reformat(
            frame, width=self._size[1], height=self._size[0], format=name, threads=1,
            src_colorspace=matrix if yuv else None, src_color_range=color_range if yuv else None,
            dst_colorspace=matrix if self._planar else None, dst_color_range=color_range if self._planar else FULL,
        )  # fmt: skip


def _pixels(plane: av.video.plane.VideoPlane, height: int, width: int) -> np.ndarray:
    """Return a view of the memory of a plane, without the padding at the end of each row."""
    return np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[:height, :width]
