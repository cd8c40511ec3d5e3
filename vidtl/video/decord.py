"""The decord backend (0.6): RGB only, for comparison with the many frameworks that read videos through it."""

from typing import Any

import numpy as np

from vidtl.errors import UserError
from vidtl.video.rgb_frames import WholeFrameReader
from vidtl.video.source import Source


class DecordReader(WholeFrameReader):
    """One open file; see `VideoReader` and `WholeFrameReader`."""

    name = "decord"

    def _import(self) -> Any:
        try:
            import decord
        except ImportError as error:
            raise UserError(
                "data.decoder is 'decord', which is not installed (it exists for Linux on x86-64 only); use 'pyav'"
            ) from error
        decord.logging.set_level(decord.logging.QUIET)
        return decord

    def _open(self, library: Any, stream: int) -> Any:
        # It picks FFmpeg's best stream, the one that was scanned. Any frame that it repairs or repeats is an error.
        return library.VideoReader(str(self.path), ctx=library.cpu(0), num_threads=1, fault_tol=1e-9)

    def _fetch(self, numbers: list[int]) -> np.ndarray:
        frames = self._decoder.get_batch(numbers)
        # Its output type is a global switch that other libraries (pytorchvideo) set to torch.
        return np.asarray(frames.asnumpy() if hasattr(frames, "asnumpy") else frames.numpy())

    def _distrust(self, source: Source, container: str) -> str | None:
        index = source.timeline.index
        if index is None and source.codec.has_b_frames:
            return "seeks wrongly where frames that are out of order can only be counted"
        if index is not None and index.has_leading_pictures():
            return "seeks wrongly between open groups of pictures"
        return None
