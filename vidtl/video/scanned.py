"""The scan of a video file, packed for a manifest of 300,000 files, with which the file opens without a scan."""

import zlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vidtl.video.orientation import Orientation
from vidtl.video.timeline import PacketIndex, Timeline

_DTYPES = (np.int8, np.int16, np.int32, np.int64)
# Of a packed column: five integers that `pts` and counts of 64 bits can lead to.
_MAX_HEAD_BYTES = 64


@dataclass(frozen=True)
class ScannedVideo:
    """The header fields that must be the same when a file is opened again, and its timeline."""

    container: str
    codec: str
    time_base: Fraction
    rate: Fraction | None
    """Frame rate that the header gives."""
    coded_size: tuple[int, int]
    """Height and width before rotation."""
    orientation: Orientation
    damaged: bool
    """The decoder marked frames as damaged; False where the frames were not decoded."""
    timeline: Timeline


def pack_timeline(timeline: Timeline) -> bytes:
    """Pack a timeline without its number of frames, time base and rate into some 20 to 150 bytes; lossless.

    Differences between packets hardly vary in a file of constant rate: the median is stored once, and what remains are
    the few small numbers of the pattern of B-frames.
    """
    if timeline.pts is None:
        return b""
    if timeline.index is None:
        return zlib.compress(_pack(timeline.pts), 9)
    index = timeline.index
    in_file, keys_in_file = np.argsort(index.order), np.argsort(index.key_order)
    columns = (index.order[in_file], index.pts[in_file], index.key_order[keys_in_file], index.key_pts[keys_in_file])
    return zlib.compress(b"".join(map(_pack, columns)), 9)


def unpack_timeline(packed: bytes, num_frames: int, time_base: Fraction, rate: Fraction | None) -> Timeline:
    """Return the timeline that `pack_timeline` packed, equal in every bit; ValueError for anything else."""
    if not packed:
        return Timeline.from_count(num_frames, rate)
    try:
        data = zlib.decompressobj().decompress(packed, 4 * (8 * num_frames + _MAX_HEAD_BYTES))
        columns = []
        place = 0
        while place < len(data):
            column, place = _unpack(data, place, num_frames)
            columns.append(column)
        if len(columns) == 1:
            return Timeline.from_pts(columns[0], time_base, rate, None)
        order, pts, key_order, key_pts = columns
        by_time, keys_by_time = np.argsort(pts, kind="stable"), np.argsort(key_pts, kind="stable")
        index = PacketIndex(pts[by_time], order[by_time], key_pts[keys_by_time], key_order[keys_by_time])
        return Timeline.from_pts(index.pts, time_base, rate, index)
    except (zlib.error, IndexError, OverflowError) as error:
        raise ValueError(f"a packed timeline is damaged ({error})") from error


def _pack(column: np.ndarray) -> bytes:
    """Pack count, first value, median step, and the deviations from it with their unit and size."""
    steps = np.diff(column)
    usual = int(np.median(steps)) if len(steps) else 0
    deviations = steps - usual
    unit = int(np.gcd.reduce(deviations)) if len(steps) else 0
    head = (len(column), int(column[0]), usual, unit)
    if unit == 0:
        return b"".join(map(_pack_int, head))
    deviations //= unit
    size = next(i for i, each in enumerate(_DTYPES) if (deviations.astype(each) == deviations).all())
    return b"".join(map(_pack_int, (*head, size))) + deviations.astype(_DTYPES[size]).tobytes()


def _unpack(data: bytes, place: int, max_count: int) -> tuple[np.ndarray, int]:
    head = []
    for _ in range(4):
        value, place = _unpack_int(data, place)
        head.append(value)
    count, first, usual, unit = head
    if not 1 <= count <= max_count:
        raise ValueError(f"a packed column has {count} values")
    steps = np.full(count - 1, usual, dtype=np.int64)
    if unit:
        size, place = _unpack_int(data, place)
        deviations = np.frombuffer(data, _DTYPES[size], count - 1, place)
        steps += unit * deviations.astype(np.int64)
        place += deviations.nbytes
    return np.concatenate([[np.int64(first)], first + np.cumsum(steps)]), place


def _pack_int(value: int) -> bytes:
    """Pack a signed integer into its length in bytes and as few bytes as possible."""
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return bytes([len(data)]) + data


def _unpack_int(data: bytes, place: int) -> tuple[int, int]:
    end = place + 1 + data[place]
    return int.from_bytes(data[place + 1 : end], "little", signed=True), end
