"""The default backend: PyAV, with as little decoding as exact frames allow.

Speed: seek to the last key frame before the first requested frame, skip non-reference pictures that are not requested,
stop after the last requested packet, crop and resize the decoder's planes.
Exactness: match frames by presentation time, check where each seek landed, seek further back or decode from the start
if it failed or landed too late, and return nothing unless every requested frame was decoded.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from vidtl.video.clip import ClipBuffer, Converter
from vidtl.video.limits import frame_decoded
from vidtl.video.reader import PixelFormat, UnreadableVideo, VideoReader, View
from vidtl.video.source import Source, unreadable
from vidtl.video.timeline import PacketIndex, ScannedVideo

_GAP_PACKETS = 12  # a seek costs about as much as reading so many packets
_STEPS_BACK_S = (0, 5, 30)  # seconds before the key frame of successive seeks, each made if the last landed after it


class PyAVReader(VideoReader):
    """One open file; see `VideoReader`."""

    def __init__(self, file: Path | BinaryIO, scanned: ScannedVideo | None = None) -> None:
        self.source = Source(file, scanned)
        self.path = self.source.path
        self.height, self.width = self.source.orientation.displayed_size(*self.source.coded_size)
        self.times_s = self.source.times_s
        self.fps = self.source.timeline.fps
        self.color = self.source.color
        self.seeks = self.source.kept is not None or self.source.timeline.index is not None
        self._is_damaged = False

    def read(self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat) -> np.ndarray:
        """Decode all views in one pass; see `VideoReader.read`."""
        clip = ClipBuffer(views, frame_size, pixel_format, self.source.geometry())
        converter = Converter(self.source.coded_size, self.color, pixel_format)
        with unreadable(self.path):
            for number, frame in self._frames(clip.needed):
                clip.put(number, converter.planes(frame))
        return clip.array

    def read_each(
        self, views: Sequence[View], frame_size: tuple[int, int], pixel_format: PixelFormat
    ) -> Iterator[np.ndarray]:
        """Decode each frame once; only the pictures of one view are held. See `VideoReader.read_each`."""
        converter, geometry = Converter(self.source.coded_size, self.color, pixel_format), self.source.geometry()
        frames = self._frames(np.unique(np.concatenate([view.indices for view in views])).tolist())
        held: dict[int, np.ndarray] = {}
        for view in views:
            first, wanted = view.indices.min(), view.indices.tolist()
            held = {number: picture for number, picture in held.items() if number >= first}
            with unreadable(self.path):
                while not held.keys() >= set(wanted):
                    number, frame = next(frames)
                    if number >= first:
                        one = ClipBuffer([View(np.array([number]), view.box)], frame_size, pixel_format, geometry)
                        one.put(number, converter.planes(frame))
                        held[number] = one.array[0, 0]
            yield np.stack([held[number] for number in wanted])

    def _frames(self, needed: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield number and decoded frame for each of `needed`; a frame may repeat after a failed seek."""
        kept, index = self.source.kept, self.source.timeline.index
        if kept is not None:
            return self._checked((number, kept[number]) for number in needed)
        return self._checked(self._look_up(index, needed) if index else self._count(needed))

    def decode_all(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield number and decoded frame of all frames, once and in order."""
        return self._checked(self._count(range(len(self.times_s))))

    def _checked(self, frames: Iterable[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
        for position, (number, frame) in enumerate(frames):
            if frame.is_corrupt:
                raise UnreadableVideo(self.path, f"frame {number} is damaged")
            if position == 0 and self.source.frame_orientation(frame) != self.source.orientation:
                raise UnreadableVideo(self.path, "its frames have a rotation that its header does not announce")
            yield number, frame

    def _count(self, needed: Iterable[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode everything from the start to the last requested frame."""
        wanted = set(needed)
        pts = self.source.timeline.pts
        for number, frame in enumerate(self.source.decode_from_start()):
            # An earlier frame that no longer decodes would shift all later numbers.
            if pts is not None and (number >= len(pts) or frame.pts != pts[number]):
                raise UnreadableVideo(self.path, f"frame {number} decodes at another time than its packet or scan has")
            if number in wanted:
                yield number, frame
                wanted.discard(number)
                if not wanted:
                    return
        raise UnreadableVideo(self.path, f"frame {min(wanted)} does not decode")

    def _look_up(self, index: PacketIndex, needed: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Seek to each stretch of requested frames and match them by time."""
        for stretch in _stretches(index, needed):
            wanted = {int(index.pts[number]): number for number in stretch}
            key = int(index.key_pts[_key_before(index, stretch[0])])
            for step_s in _STEPS_BACK_S:
                missing = set(stretch)
                try:
                    self.source.seek(key - round(step_s / self.source.stream.time_base))
                except av.FFmpegError:  # FLV cannot seek before the first entry of its index
                    continue
                for number, frame in self._decode(wanted):
                    # The decoder may mark frames as damaged that may refer to some before the key frame.
                    if frame.is_corrupt:
                        break
                    yield number, frame
                    missing.discard(number)
                if not missing:
                    break
            else:
                if self._is_damaged:  # once is enough: successive windows would all decode the file from its start
                    raise UnreadableVideo(self.path, f"frame {stretch[0]} does not decode")
                self._is_damaged = True
                yield from self._count(stretch)
                self._is_damaged = False

    def _decode(self, wanted: dict[int, int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield frames at the `wanted` times (time -> number) from the present position; none if it is too late."""
        codec = self.source.codec
        first = min(wanted)
        due = set(wanted)
        started = False
        for packet in self.source.packets():
            if not started and (packet.pts is None or packet.pts > first or not packet.is_keyframe):
                return
            started = True
            if packet.size == 0:  # the demuxer's end marker
                break
            codec.skip_frame = "DEFAULT" if packet.pts in due else "NONREF"
            for frame in codec.decode(packet):
                frame_decoded()
                if frame.pts in wanted:
                    yield wanted[frame.pts], frame
            due.discard(packet.pts)
            if not due:
                break
        for frame in codec.decode(None):
            if frame.pts in wanted:
                yield wanted[frame.pts], frame

    def close(self) -> None:
        """Free the decoder and the file; may be called twice."""
        self.source.close()


def _key_before(index: PacketIndex, number: int) -> int:
    """Return the number of the last key frame that is not shown after a frame."""
    return max(int(np.searchsorted(index.key_pts, index.pts[number], side="right")) - 1, 0)


def _stretches(index: PacketIndex, needed: list[int]) -> list[list[int]]:
    """Split frame numbers (rising) wherever a seek to the next key frame is cheaper than decoding on."""
    parts: list[list[int]] = []
    last_packet = -1
    for number in needed:
        if not parts or index.key_order[_key_before(index, number)] - last_packet > _GAP_PACKETS:
            parts.append([])
        parts[-1].append(number)
        last_packet = max(last_packet, int(index.order[number]))
    return parts
