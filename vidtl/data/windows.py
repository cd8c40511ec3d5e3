"""Windows of videos as records: clips at equal distances over whole files, or around given times.

A window is the part of its file that the protocol `center` shows as one clip, so it is read, scored and resumed like
any other record. Axes: W windows, M frames of a file.
"""

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vidtl.annotations.records import Records, StringColumn
from vidtl.config import ClipConfig, DataConfig
from vidtl.data.batch import Read
from vidtl.data.dataset import open_record
from vidtl.data.manifest import find_manifest
from vidtl.data.workers import Reads, read_batches
from vidtl.errors import UserError
from vidtl.video import UnreadableVideo

_CLOCK_TOLERANCE_S = 1e-6


class Hop(NamedTuple):
    """Distance of the starts of successive windows: one of both is above 0."""

    frames: int = 0
    """At the rate of the model's clips: `clip.target_fps`, or that of the file."""
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str, name: str) -> "Hop":
        """Read `8 frames` or `0.5 s`; UserError with `name` for anything else."""
        match = re.fullmatch(r"(\d+) ?frames?|(\d*\.?\d+) ?s(?:ec(?:onds?)?)?", text.strip())
        hop = cls(int(match[1] or 0), float(match[2] or 0)) if match else cls()
        if not any(hop):
            raise UserError(f"{name} is {text!r}; allowed: a distance such as '8 frames' or '0.5 s', above 0")
        return hop


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Windows of some files, in the order of these and of time."""

    records: Records
    """One per window, with the labels of its file."""
    owners: NDArray[np.int64]
    """[W]: record number of the file."""
    spans_s: NDArray[np.float64]
    """[W, 2]: start of the first frame, and of the one behind the last; zeros for a file that cannot be opened."""
    durations_s: list[float]
    """Of each file; 0 for one that cannot be opened."""
    failures: dict[int, str]
    """Reasons of the windows of files that cannot be opened."""


class _FrameTimes(NamedTuple):
    times_s: NDArray[np.float64]
    """[M], rising; empty for a file that cannot be opened."""
    fps: float
    duration_s: float
    reason: str


_Starts = Callable[[int, _FrameTimes, int], NDArray[np.int64]]
"""(record number, frames of its file, the first window that reaches the end) -> first frame of each window"""


def sliding_windows(records: Records, clip: ClipConfig, data: DataConfig, hop: Hop) -> Windows:
    """Cut every file into windows of `clip`, `hop` apart; the last one ends with the last frame.

    A file that is too short is one window, as is one that cannot be opened. Files are opened in workers, once, and
    nothing is decoded where their packets tell the times of all frames.
    """

    def starts(index: int, file: _FrameTimes, last: int) -> NDArray[np.int64]:
        hop_s = hop.seconds or (hop.frames / clip.target_fps if clip.target_fps else 0.0)
        if hop_s:
            hops = (file.times_s - file.times_s[:1] + _CLOCK_TOLERANCE_S) // hop_s
            found = np.flatnonzero(np.diff(hops, prepend=-1))
        else:
            found = np.arange(0, len(file.times_s), hop.frames)
        return np.union1d(found.clip(max=last), last)

    return _windows(records, clip, data, starts)


def centered_windows(
    records: Records, clip: ClipConfig, data: DataConfig, times_s: Callable[[int, float], NDArray[np.float64]]
) -> Windows:
    """Center a window on the frame at each of `times_s(record number, duration in s or 0)`, moved into its file."""

    def starts(index: int, file: _FrameTimes, last: int) -> NDArray[np.int64]:
        shown = np.searchsorted(file.times_s, times_s(index, file.duration_s) + _CLOCK_TOLERANCE_S, side="right") - 1
        rate = file.fps / clip.target_fps if clip.target_fps else 1.0
        return (shown - int(clip.num_frames * clip.stride * rate / 2)).clip(0, last)

    return _windows(records, clip, data, starts)


def _windows(records: Records, clip: ClipConfig, data: DataConfig, starts: _Starts) -> Windows:
    dataset, keys = _TimesDataset(records, data), [[index] for index in range(len(records))]
    with closing(read_batches(dataset, dataset.reads, lambda done: keys[done:], itemgetter(0), 0)) as found:
        files: list[_FrameTimes] = list(found)
    parts = [_segments(index, file, clip, starts) for index, file in enumerate(files)]
    table, owners = np.concatenate(parts), np.repeat(np.arange(len(files)), [len(part) for part in parts])
    ids = (f"{records.ids[owner]} {number}" for owner, part in enumerate(parts) for number in range(1, len(part) + 1))
    return Windows(
        records=replace(
            records.select(owners),
            ids=StringColumn.from_strings(ids),
            segment_starts_s=table[:, 0],
            segment_ends_s=table[:, 1],
        ),
        owners=owners,
        spans_s=table[:, 2:],
        durations_s=[file.duration_s for file in files],
        failures={window: files[owner].reason for window, owner in enumerate(owners) if files[owner].reason},
    )


def _segments(index: int, file: _FrameTimes, clip: ClipConfig, starts: _Starts) -> NDArray[np.float64]:
    """Return rows of start and end of the segment, and of the window, in s: [W, 4]; zeros if the file has no frames."""
    times_s, span, count = file.times_s, clip.num_frames * clip.stride, len(file.times_s)
    if clip.target_fps:
        stops = np.searchsorted(times_s, times_s + span / clip.target_fps - _CLOCK_TOLERANCE_S)
    else:
        stops = (np.arange(count) + span).clip(max=count)
    firsts = starts(index, file, int(np.searchsorted(stops, count)))
    if not count:
        return np.zeros((len(firsts), 4))
    stops = stops[firsts]
    ends_s = np.append(times_s, times_s[-1] + 1 / file.fps)[stops]
    # Between two frames, so that rounding moves no frame in or out; the last part is open.
    bounds_s = np.where(stops < count, (times_s[stops - 1] + ends_s) / 2, np.inf)
    return np.stack([times_s[firsts], bounds_s, times_s[firsts], ends_s], axis=1)


class _TimesDataset(Dataset[_FrameTimes]):
    """Frame times of whole files by record number."""

    def __init__(self, records: Records, data: DataConfig) -> None:
        self.records, self.data = records, data
        self.manifest, self.reads = find_manifest(records.root, data.manifest), Reads(data)

    def __getitem__(self, index: int) -> _FrameTimes:
        limits = self.reads.limited(Read(0, index, index), self.records.path(index))
        try:
            with limits, open_record(self.records, index, self.data, self.manifest) as video:
                return _FrameTimes(video.times_s, video.fps, video.duration_s, "")
        except UnreadableVideo as error:
            return _FrameTimes(np.zeros(0), 1.0, 0.0, error.reason)
