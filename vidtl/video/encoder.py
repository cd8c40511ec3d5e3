"""Write MP4 files: frames in memory, and copies of videos with exactly the same frame times."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidtl.video.clip import FULL, LIMITED, Converter
from vidtl.video.pyav import PyAVReader
from vidtl.video.reader import Matrix
from vidtl.video.source import unreadable
from vidtl.video.timeline import ScannedVideo

_MATRIX_CODES: dict[Matrix, int] = {"bt709": 1, "bt601": 6, "bt2020": 9}  # ITU-T H.273 MatrixCoefficients


class Encoder:
    """H.264 of the frames of a video as displayed, at their times and in their colors, in a new MP4 file."""

    def __init__(self, video: PyAVReader, file: Path, size: tuple[int, int], codec: str, **options: str) -> None:
        """Open a file for pictures of `size` (H, W), rounded down to even numbers; the caller closes `container`.

        `codec` is the name of an encoder, or "h264" for FFmpeg's first one: libx264, or another in a PyAV without it.
        """
        self._video, source = video, video.source
        self._converter = Converter(source.orientation.displayed_size(*size), source.color, "planar")
        self._pts, self._time_base = exact_times(source.scanned())
        # Exact times of the start.
        options_of_file = {"movflags": "+faststart", "movie_timescale": str(self._time_base.denominator)}
        self.container = av.open(str(file), "w", format="mp4", options=options_of_file)
        rate = Fraction(source.timeline.fps).limit_denominator(1001)
        self.stream: av.VideoStream = self.container.add_stream(codec, rate=rate or 1, options=options)
        self.stream.height, self.stream.width, self.stream.pix_fmt = size[0] // 2 * 2, size[1] // 2 * 2, "yuv420p"
        context = self.stream.codec_context
        context.time_base = self.stream.time_base = self._time_base
        context.colorspace = _MATRIX_CODES[source.color.matrix]
        context.color_range = FULL if source.color.full_range else LIMITED

    def frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield time in seconds and picture of each frame, in memory of its own and ready for `stream.encode`."""
        height, width = self.stream.height, self.stream.width
        first = round(self._video.times_s[0] / self._time_base) - self._pts[0]
        with unreadable(self._video.path):
            for number, frame in self._video.decode_all():
                planes = map(self._video.source.orientation.apply, self._converter.planes(frame))
                luma, *chroma = (plane[:height, :width] for plane in planes)
                parts = [luma, *(plane[: height // 2, : width // 2] for plane in chroma)]
                pixels = np.concatenate([part.reshape(-1) for part in parts]).reshape(-1, width)
                picture = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
                picture.pts, picture.time_base = first + self._pts[number], self._time_base
                yield float(self._video.times_s[number]), picture


def exact_times(video: ScannedVideo) -> tuple[list[int], Fraction]:
    """Return the times of all frames as integers, and their unit in seconds."""
    timeline = video.timeline
    if timeline.pts is not None:
        return timeline.pts.tolist(), video.time_base
    return list(range(len(timeline.times_s))), 1 / (video.rate or Fraction(timeline.fps))


def encode_video(path: Path, frames_THWC: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], fps: int | Fraction) -> None:
    """Write RGB frames uint8 [T, H, W, 3] with even sides as H.264 in MP4, in one thread for reproducible bytes."""
    height, width, _ = frames_THWC[0].shape
    with av.open(path, "w") as container:
        # Without the macroblock tree, which is not reproducible on processors with AVX-512.
        options = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
