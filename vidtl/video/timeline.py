"""Which frames a file has and when they are shown, learnt without trusting its header.

Headers lie about the number of frames (AVI files of HMDB51 say one too many, Matroska says nothing). Packets do not lie
where one packet is always one shown frame with its own time; everywhere else only decoding the file tells.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av import Packet, VideoFrame

# Codecs that put exactly one shown frame into each packet of a container with an index. Not MPEG-4 part 2 (packed and
# uncoded pictures), MPEG-2 (single fields) or VP8 (packets of pictures that are never shown).
_ONE_PACKET_ONE_FRAME = {"h264", "hevc", "vp9", "av1", "h263", "mjpeg", "prores", "dnxhd"}

# Containers with an index and a time on every packet. AVI has no times, and transport and program streams have no
# index.
_INDEXED = {"mov", "matroska", "flv"}


@dataclass(frozen=True)
class PacketIndex:
    """Where to find N frames by their times; K key frames."""

    pts: np.ndarray
    """int64 [N]: presentation times in units of the stream, rising."""
    order: np.ndarray
    """int64 [N]: position of each frame's packet in the file, that is, in decoding order."""
    key_pts: np.ndarray
    """int64 [K]: presentation times of key frames, rising, among them those that an edit list hides."""
    key_order: np.ndarray
    """int64 [K]: positions of their packets."""

    def has_leading_pictures(self) -> bool:
        """Whether frames are shown before a key frame that they follow in the file (open GOPs)."""
        in_file = np.argsort(self.order)
        earliest_from = np.minimum.accumulate(self.pts[in_file][::-1])[::-1]
        after_key = np.searchsorted(self.order[in_file], self.key_order, side="left")
        inside = after_key < len(in_file)
        return bool((earliest_from[after_key[inside]] < self.key_pts[inside]).any())


@dataclass(frozen=True)
class Timeline:
    """N frames of a file in presentation order."""

    times_s: np.ndarray
    """float64 [N]: presentation times in seconds from the first frame."""
    fps: float
    """Average frame rate."""
    index: PacketIndex | None
    """None: the frames were counted by decoding; they have no reliable times to look up, nor places to seek to."""
    pts: np.ndarray | None
    """int64 [N]: the exact times in units of the stream; None where the decoder gives none that rise."""

    @classmethod
    def from_pts(
        cls, pts: np.ndarray, time_base: Fraction, rate: Fraction | None, index: PacketIndex | None
    ) -> "Timeline":
        """Frames at exact times."""
        times_s = (pts - pts[0]) * float(time_base)
        return cls(times_s, average_rate(times_s, rate), index, pts)

    @classmethod
    def from_count(cls, count: int, rate: Fraction | None) -> "Timeline":
        """Frames without times, at a constant rate."""
        times_s = np.arange(count) / float(rate or _ASSUMED_RATE)
        return cls(times_s, average_rate(times_s, rate), None, None)


def scan_packets(
    packets: Iterable[Packet], container: str, codec: str, time_base: Fraction, rate: Fraction | None
) -> Timeline | None:
    """The timeline from demuxed packets alone, or None where they do not prove what a decode yields.

    Packets that an edit list discards are no frames. A file that does not begin with a key frame, or whose first key
    frame has leading pictures (shown before it, decoded after it), loses frames in decoding, so it is not trusted
    either.
    """
    if container not in _INDEXED or codec not in _ONE_PACKET_ONE_FRAME:
        return None
    pts: list[int] = []
    shown: list[bool] = []
    keys: list[bool] = []
    for packet in packets:
        if packet.size == 0:  # the demuxer's mark for the end
            continue
        if packet.pts is None or packet.is_corrupt or (pts and packet.pts < pts[0]):
            return None
        pts.append(packet.pts)
        shown.append(not packet.is_discard)
        keys.append(packet.is_keyframe)
    return _timeline(np.array(pts, dtype=np.int64), np.array(shown), np.array(keys), time_base, rate)


def _timeline(
    pts: np.ndarray, shown: np.ndarray, keys: np.ndarray, time_base: Fraction, rate: Fraction | None
) -> Timeline | None:
    if not shown.any() or not keys[0]:
        return None
    by_time = np.argsort(pts, kind="stable")
    order, key_order = by_time[shown[by_time]], by_time[keys[by_time]]
    index = PacketIndex(pts=pts[order], order=order, key_pts=pts[key_order], key_order=key_order)
    if (np.diff(index.pts) == 0).any():
        return None
    return Timeline.from_pts(index.pts, time_base, rate, index)


def count_frames(frames: Iterable[VideoFrame], time_base: Fraction, rate: Fraction | None) -> Timeline | None:
    """The timeline from decoding everything; None where nothing decodes.

    Times are the decoder's where they rise, else (AVI with B-frames) those of a constant `rate`.
    """
    pts = [frame.pts for frame in frames]
    if not pts:
        return None
    if None not in pts and (np.diff(pts) > 0).all():
        return Timeline.from_pts(np.array(pts, dtype=np.int64), time_base, rate, None)
    return Timeline.from_count(len(pts), rate)


# For a file without any times, or one frame, whose header gives no rate: there has to be one, and PAL's will do.
_ASSUMED_RATE = 25


def average_rate(times_s: np.ndarray, rate: Fraction | None) -> float:
    """Frames per second over the file, or the header's `rate` where a single frame has no duration."""
    if len(times_s) > 1 and times_s[-1] > 0:
        return float((len(times_s) - 1) / times_s[-1])
    return float(rate or _ASSUMED_RATE)
