"""The torchcodec backend: RGB only, an optional extra that needs FFmpeg's libraries on the machine."""

from importlib import import_module
from typing import Any

import numpy as np

from vidtl.errors import UserError
from vidtl.video.reader import UnreadableVideo
from vidtl.video.rgb_frames import WholeFrameReader
from vidtl.video.source import Source


class TorchcodecReader(WholeFrameReader):
    """One open file; see `VideoReader` and `WholeFrameReader`."""

    name = "torchcodec"

    def _import(self) -> Any:
        try:
            return import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:  # the latter two: no FFmpeg, or one that it cannot load
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                "data.decoder is 'torchcodec', which needs `pip install vidtl[torchcodec]` and FFmpeg's libraries "
                f"({reason}); use 'pyav'"
            ) from error

    def _open(self, library: Any, stream: int) -> Any:
        # "approximate" seeking returns wrong frames where the frame rate varies.
        return library.VideoDecoder(
            str(self.path), stream_index=stream, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )

    def _fetch(self, numbers: list[int]) -> np.ndarray:
        frames = self._decoder.get_frames_at(numbers)
        times_s = frames.pts_seconds.numpy() - self._decoder.metadata.begin_stream_seconds
        if np.abs(times_s - self.times_s[numbers]).max() > 0.5 / self.fps:
            raise UnreadableVideo(self.path, "torchcodec delivers frames of other times; use data.decoder pyav")
        return np.asarray(frames.data.numpy())

    def _distrust(self, source: Source, container: str) -> str | None:
        if container == "avi" and source.codec.has_b_frames:
            return "miscounts frames that are out of order and have no times (AVI)"
        return None
