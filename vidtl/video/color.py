"""Read color tags, and convert decoded frames to planes or RGB in the tagged colors."""

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from vidtl.video.reader import LUMA_WEIGHTS, Color, Matrix, PixelFormat

# AVColorSpace (ITU-T H.273 MatrixCoefficients) to our matrices; FCC and SMPTE 240M are nearest to 601 and 709.
_MATRICES: dict[int, Matrix] = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}

# swscale's numbers of the same matrices (SWS_CS_*), and of limited and full range.
_SWS_MATRICES = {"bt601": 5, "bt709": 1, "bt2020": 9}
_LIMITED, _FULL = 1, 2

# Two names of the same layout; the second one implies full range.
_I420 = ("yuv420p", "yuvj420p")


def color_of(pixel_format: av.VideoFormat, matrix: int, color_range: int, default: Matrix) -> Color:
    """Return the color of a stream from its tags; without tags, the matrix is `default` and the range is limited.

    RGB and grayscale pictures become limited BT.601 when they are converted to planes.
    """
    if not _is_yuv(pixel_format):
        return Color("bt601", full_range=False)
    full_range = color_range == _FULL or pixel_format.name.startswith("yuvj")
    return Color(_MATRICES.get(matrix, default), full_range)


def change_matrix(rgb: np.ndarray, wrong: Matrix, right: Matrix) -> np.ndarray:
    """Correct uint8 RGB [..., W, 3] that was converted from YUV with the wrong matrix.

    YUV of the wrong RGB, then RGB of that YUV (ITU-T H.273) are one linear map. Exact but for rounding and for colors
    that the wrong conversion had to clip.
    """
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


def _is_yuv(pixel_format: av.VideoFormat) -> bool:
    return not (pixel_format.is_rgb or pixel_format.has_palette or len(pixel_format.components) < 3)


class Converter:
    """Converts decoded frames of one file to 8-bit planes or RGB of one size, before any rotation."""

    def __init__(self, size: tuple[int, int], color: Color, pixel_format: PixelFormat) -> None:
        self._size = size
        self._color = color
        self._planar = pixel_format == "planar"
        self._reformatter = VideoReformatter()

    def planes(self, frame: av.VideoFrame) -> list[np.ndarray]:
        """Return uint8 Y [H, W], U and V [ceil(H / 2), ceil(W / 2)], or one RGB array [H, W, 3].

        I420 frames are not copied. Other subsamplings, bit depths and sizes (a stream may change its size midway) are
        converted by swscale.
        """
        height, width = self._size
        if not self._planar:
            frame = self._reformat(frame, "rgb24")
            return [_pixels(frame.planes[0], height, 3 * width).reshape(height, width, 3)]
        if frame.format.name not in _I420 or (frame.height, frame.width) != self._size:
            frame = self._reformat(frame, "yuv420p")
        half = ((height + 1) // 2, (width + 1) // 2)
        sizes = ((height, width), half, half)
        return [_pixels(plane, *size) for plane, size in zip(frame.planes, sizes, strict=True)]

    def _reformat(self, frame: av.VideoFrame, name: str) -> av.VideoFrame:
        matrix = _SWS_MATRICES[self._color.matrix]
        color_range = _FULL if self._color.full_range else _LIMITED
        yuv = _is_yuv(frame.format)
        height, width = self._size
        return self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format=name,
            src_colorspace=matrix if yuv else None,
            src_color_range=color_range if yuv else None,
            dst_colorspace=matrix if self._planar else None,
            dst_color_range=color_range if self._planar else _FULL,
            threads=1,
        )


def _pixels(plane: av.video.plane.VideoPlane, height: int, width: int) -> np.ndarray:
    """Return a view of the memory of a plane, without the padding at the end of each row."""
    return np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[:height, :width]
