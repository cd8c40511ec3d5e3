"""Frames of a file and their presentation times, found without trusting its header, and their compact storage.

Headers are wrong about the number of frames (AVI files of HMDB51 have one less than announced, Matroska announces
none). Packets can be trusted where each is one shown frame with its own time; all other files must be decoded.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from av import Packet, VideoFrame

from vidtl.video.reader import Orientation

# Codecs that put exactly one shown frame into each packet of a container with an index, which transport and program
# streams have not. Not MPEG-4 part 2 (packed and uncoded pictures), MPEG-2 (single fields) or VP8 (packets of pictures
# that are never shown); in AVI, whose times are positions in decoding order, none with frames that are out of order.
_ONE_PACKET_ONE_FRAME = {"h264", "hevc", "vp9", "av1", "h263", "mjpeg", "prores", "dnxhd"}
_IN_ORDER = {"mjpeg", "rawvideo", "huffyuv", "ffvhuff", "ffv1", "utvideo", "magicyuv"}
_INDEXED = {**dict.fromkeys(("mov", "matroska", "flv"), _ONE_PACKET_ONE_FRAME), "avi": _IN_ORDER}

UNTIMED = {"h264", "hevc", "mpegvideo", "m4v", "mjpeg"}
"""Elementary streams: their demuxers make up times, for 25 frames per second."""

MOST_FRAMES = 1 << 22
"""Of a file: 39 hours at 30 frames per second."""
ASSUMED_RATE = 25
"""Frames per second if neither times nor the header give a rate."""
_COLUMNS = 4  # of a packed timeline, none longer than its frames; bounds the size of a damaged one


@dataclass(frozen=True)
class PacketIndex:
    """Packets of N frames and K key frames, for seeking."""

    pts: np.ndarray
    """int64 [N]: presentation times in units of the stream, rising."""
    order: np.ndarray
    """int64 [N]: position of each frame's packet in the file, which is decoding order."""
    key_pts: np.ndarray
    """int64 [K]: presentation times of key frames, rising, among them those that an edit list hides."""
    key_order: np.ndarray
    """int64 [K]: positions of their packets."""

    def has_leading_pictures(self) -> bool:
        """Return True if frames are shown before a key frame that they follow in the file (open GOPs)."""
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
    """Average frame rate; the header's for a single frame, which has no duration."""
    index: PacketIndex | None
    """None: the frames were counted by decoding, and it is not possible to seek to them."""
    pts: np.ndarray | None
    """int64 [N]: exact times in units of the stream; None if those of the decoder do not rise."""

    @classmethod
    def from_pts(cls, pts: np.ndarray, time_base: Fraction, rate: Fraction | None, index: PacketIndex | None) -> Self:
        """Build a timeline from exact times."""
        times_s = (pts - pts[0]) * float(time_base)
        return cls(times_s, _average_rate(times_s, rate), index, pts)

    @classmethod
    def from_count(cls, count: int, rate: Fraction | None) -> Self:
        """Build a timeline of a constant rate for frames without times; without a rate, 25 per second are assumed."""
        times_s = np.arange(count) / float(rate or ASSUMED_RATE)
        return cls(times_s, _average_rate(times_s, rate), None, None)


def _average_rate(times_s: np.ndarray, rate: Fraction | None) -> float:
    if len(times_s) > 1 and times_s[-1] > 0:
        return float((len(times_s) - 1) / times_s[-1])
    return float(rate or ASSUMED_RATE)


@dataclass(frozen=True)
class ScannedVideo:
    """The part of a file's header that must be unchanged when it is opened again, and the result of the scan."""

    container: str
    codec: str
    time_base: Fraction
    rate: Fraction | None
    """Frame rate in the header; None if there is none."""
    coded_size: tuple[int, int]
    """Height and width before rotation."""
    orientation: Orientation
    damaged: bool
    """The decoder marked a frame as damaged; False if the frames were not decoded."""
    timeline: Timeline


def scan_packets(
    packets: Iterable[Packet], container: str, codec: str, time_base: Fraction, rate: Fraction | None
) -> Timeline | None:
    """Build the timeline from demuxed packets alone, or return None if a decode may yield other frames.

    Packets that an edit list discards are no frames. Not trusted: a file that does not begin with a key frame without
    leading pictures, which loses frames in decoding, one with more key frames than shown ones, whose packed timeline
    would be longer than a damaged one may be, and an AVI file whose packets are elsewhere than in its index.
    """
    if codec not in _INDEXED.get(container, ()):
        return None
    rows: list[tuple[int, bool, bool]] = []
    for packet in packets:
        if packet.size == 0:  # the demuxer's end marker
            continue
        if packet.pts is None or packet.is_corrupt or (rows and packet.pts < rows[0][0]):
            return None
        if container == "avi":
            entries = packet.stream.index_entries
            number = entries.search_timestamp(packet.pts, any_frame=True)
            if number < 0 or (entries[number].timestamp, entries[number].pos + 8) != (packet.pts, packet.pos):
                return None
        rows.append((packet.pts, not packet.is_discard, packet.is_keyframe))
    pts, shown, keys = np.array(rows, np.int64).reshape(-1, 3).T
    if not shown.any() or not keys[0] or keys.sum() > shown.sum():
        return None
    by_time = np.argsort(pts, kind="stable")
    order, key_order = by_time[shown[by_time] > 0], by_time[keys[by_time] > 0]
    index = PacketIndex(pts=pts[order], order=order, key_pts=pts[key_order], key_order=key_order)
    if (np.diff(index.pts) == 0).any():
        return None
    return Timeline.from_pts(index.pts, time_base, rate, index)


def count_frames(
    frames: Iterable[VideoFrame], container: str, time_base: Fraction, rate: Fraction | None
) -> Timeline | None:
    """Build the timeline of decoded frames, at their times if these rise, else of a constant `rate`; None without."""
    pts = [frame.pts for frame in frames]
    if not pts:
        return None
    if container not in UNTIMED and None not in pts and (np.diff(pts) > 0).all():
        return Timeline.from_pts(np.array(pts, dtype=np.int64), time_base, rate, None)
    return Timeline.from_count(len(pts), rate)


def pack_timeline(timeline: Timeline) -> bytes:
    """Encode all but number of frames, time base and rate losslessly, as steps in file order: some 50 to 200 bytes."""
    if timeline.pts is None:
        return b""
    columns = [timeline.pts]
    if index := timeline.index:
        in_file, keys_in_file = np.argsort(index.order), np.argsort(index.key_order)
        columns = [index.order[in_file], index.pts[in_file], index.key_order[keys_in_file], index.key_pts[keys_in_file]]
    steps = np.concatenate([np.diff(column, prepend=0) for column in columns]).astype("<i8")
    # All lowest bytes first: the highest ones are almost always zero.
    return zlib.compress(steps.view(np.uint8).reshape(-1, 8).T.tobytes(), 9)


def unpack_timeline(packed: bytes, num_frames: int, time_base: Fraction, rate: Fraction | None) -> Timeline:
    """Decode the result of `pack_timeline`, bit for bit; ValueError for anything else."""
    if not packed:
        return Timeline.from_count(num_frames, rate)
    try:
        data = zlib.decompressobj().decompress(packed, _COLUMNS * 8 * num_frames + 1)
        steps = np.frombuffer(data, np.uint8).reshape(8, -1).T.copy().view("<i8")[:, 0]
        if len(steps) == num_frames:
            return Timeline.from_pts(np.cumsum(steps), time_base, rate, None)
        num_keys = len(steps) // 2 - num_frames
        ends = [num_frames, 2 * num_frames, 2 * num_frames + num_keys]
        order, pts, key_order, key_pts = map(np.cumsum, np.split(steps, ends))
        by_time, keys_by_time = np.argsort(pts, kind="stable"), np.argsort(key_pts, kind="stable")
        index = PacketIndex(pts[by_time], order[by_time], key_pts[keys_by_time], key_order[keys_by_time])
        return Timeline.from_pts(index.pts, time_base, rate, index)
    except (zlib.error, IndexError) as error:
        raise ValueError(f"a packed timeline is damaged ({error})") from error
