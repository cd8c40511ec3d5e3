"""Result of a scan, small enough to store for 300,000 files, with which opening a file needs no scan."""

import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vidtl.video.orientation import Orientation
from vidtl.video.timeline import PacketIndex, Timeline

_COLUMNS = 4
"""Columns of a packed timeline, none longer than its frames; bounds the size of a damaged one."""


@dataclass(frozen=True)
class ScannedVideo:
    """The part of a file's header that must be unchanged when it is opened again, and the result of the scan."""

    container: str
    codec: str
    time_base: Fraction
    rate: Fraction | None
    """Frame rate in the header."""
    coded_size: tuple[int, int]
    """Height and width before rotation."""
    orientation: Orientation
    damaged: bool
    """The decoder marked a frame as damaged; False if the frames were not decoded."""
    timeline: Timeline


def pack_timeline(timeline: Timeline) -> bytes:
    """Encode a timeline, without its number of frames, time base and rate, losslessly in some 50 to 200 bytes.

    In file order, differences from one packet to the next hardly vary, so that zlib compresses them well.
    """
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
    except (zlib.error, IndexError) as error:
        raise ValueError(f"a packed timeline is damaged ({error})") from error
    return Timeline.from_pts(index.pts, time_base, rate, index)
