"""A copy of a video with its most probable classes written on it. Axes: C cells of time, K classes, H W pixels."""

import heapq
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vidtl.runtime.files import printable, replacing
from vidtl.video import UnreadableVideo
from vidtl.video.encoder import Encoder
from vidtl.video.pyav import PyAVReader
from vidtl.video.source import unreadable
from vidtl.visualize import draw_label

_OPACITY, _BLACK, _WHITE = 0.75, 16, 235  # of all that is drawn, and its luma
_log = logging.getLogger(__name__)


def write_overlay(
    video: Path,
    path: Path,
    class_names: Sequence[str],
    edges: NDArray[np.float64],
    probabilities_CK: NDArray[np.float64],
    top_k: int = 3,
    on_frame: Callable[[float], None] = lambda time_s: None,
) -> None:
    """Write an MP4 file with the `top_k` classes of each cell and a bar of time, one frame after the other.

    Frame times are the video's, rotation is applied, odd sizes lose a row or column, sound is copied if MP4 takes it.
    `edges` [C + 1] are rising seconds from the start of the file; cells of NaN get no text; `on_frame` gets each time.
    A video that breaks off is written up to there, with a warning; UnreadableVideo if no frame can be decoded.
    """
    with PyAVReader(video) as reader, PyAVReader(video, reader.source.scanned()) as sound, replacing(path) as temporary:
        encoder = Encoder(reader, temporary, (reader.height, reader.width), "h264", preset="veryfast", crf="20")
        height, width, done_s = encoder.stream.height, encoder.stream.width, None
        panel = lru_cache(1)(partial(_panel, class_names, probabilities_CK, top_k, (height, width)))
        bar = np.arange(width)[None].repeat(max(4, height // 160 * 2), axis=0) * reader.times_s[-1] / width
        with encoder.container as container:
            try:
                for time_s, item in heapq.merge(encoder.frames(), _copied(sound, container), key=lambda each: each[0]):
                    if isinstance(item, av.VideoFrame):
                        _blend(item, panel(int(np.searchsorted(edges, time_s, side="right")) - 1), 8, 8)
                        _blend(item, np.where(bar <= time_s, _WHITE, _BLACK), height - len(bar), 0)
                        on_frame(done_s := time_s)
                    container.mux(item if isinstance(item, av.Packet) else encoder.stream.encode(item))
            except UnreadableVideo as error:
                if done_s is None:
                    raise
                _log.warning("%s; %s ends after %.2f s", error, path, done_s)
            container.mux(encoder.stream.encode(None))


def _copied(sound: PyAVReader, container: av.container.OutputContainer) -> Iterator[tuple[float, av.Packet]]:
    """Add a stream for all sound that MP4 takes, then yield time and packet, from the start of the file."""
    opened, copies = sound.source.stream.container, {}
    for stream in opened.streams.audio:
        try:
            copies[stream] = container.add_stream_from_template(stream)
        except ValueError as error:
            _log.warning("%s: its sound is left out: %s", sound.path, error)
    with unreadable(sound.path):
        for packet in opened.demux(*copies) if copies else ():
            if packet.pts is not None and packet.dts is not None:
                start = round((opened.start_time or 0) / av.time_base / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copies[packet.stream]
                yield float(packet.dts * packet.time_base), packet


def _panel(
    class_names: Sequence[str], probabilities_CK: NDArray[np.float64], top_k: int, size: tuple[int, int], cell: int
) -> NDArray[np.uint8]:
    """Write the most probable classes of a cell, as large as suits frames of `size`: luma [h, w], both even."""
    if not 0 <= cell < len(probabilities_CK) or np.isnan(probabilities_CK[cell]).any():
        return np.zeros((0, 0), np.uint8)
    font, end = max(10, min(size) // 22), 0.0
    panel = Image.new("L", (size[1], font * (min(top_k, len(class_names)) * 3 + 1) // 4 * 2), _BLACK)
    for row, k in enumerate(np.argsort(-probabilities_CK[cell], kind="stable")[:top_k]):
        text = f"{probabilities_CK[cell, k]:.2f}  {printable(class_names[k], max(size[1] * 5 // (3 * font) - 8, 4))}"
        end = max(end, draw_label(ImageDraw.Draw(panel), (font // 2, font * (6 * row + 1) // 4), text, _WHITE, font))
    return np.asarray(panel)[:, : (round(end) + font // 2) // 2 * 2]


def _blend(frame: av.VideoFrame, luma: NDArray[np.uint8], top: int, left: int) -> None:
    """Blend luma [h, w] without color into an I420 frame, cut off at its edges; all four numbers are even."""
    for plane, scale in zip(frame.planes, (1, 2, 2), strict=True):
        pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        area = pixels[top // scale :, left // scale :][: luma.shape[0] // scale, : luma.shape[1] // scale]
        area[...] = (1 - _OPACITY) * area + _OPACITY * (luma[: area.shape[0], : area.shape[1]] if scale == 1 else 128)
