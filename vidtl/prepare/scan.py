"""Scans: one file, or all files of a data set into its manifest."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vidtl.data.manifest import DEPTHS, Depth, Entry, Manifest, Stamp, Status, file_stamp
from vidtl.prepare.manifest import ManifestFolder
from vidtl.prepare.work import Lost, Work, do_work
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard
from vidtl.video import UnreadableVideo, open_video
from vidtl.video.images import StillReader
from vidtl.video.limits import frame_decoded
from vidtl.video.pyav import PyAVReader
from vidtl.video.source import Source, unreadable
from vidtl.video.timeline import pack_timeline

_END_BYTES = 64 << 10  # read from each end of a file to find candidates for duplicates
_BYTES_PER_S = 1_000_000  # by which the time limit grows


class ScanJob(NamedTuple):
    """One file to scan: its path relative to the root, and the frame rate if it is a folder of images."""

    root: Path
    path: str
    depth: Depth
    frame_rate: float | None = None
    follow_links: bool = True


def scan_file(job: ScanJob) -> Entry:
    """Scan one file.

    `packets`: the file opens and every packet has a time; if packets do not prove the number of frames, all are
    decoded. `frames`: every frame decodes at its time. In a folder of images: names and one header, or every image.
    """
    file = job.root / job.path
    stamp = file_stamp(file)
    if stamp is None:
        return missing_entry(job.path, job.depth)
    entry = Entry(path=job.path, status="ok", reason="", depth=job.depth, size=stamp.size, mtime_ns=stamp.mtime_ns)
    try:
        with open_video(file, "pyav", None if job.follow_links else job.root, job.frame_rate) as video:
            if file.is_file():
                entry = replace(entry, fingerprint=_fingerprint(file, stamp.size))
            if isinstance(video, StillReader):
                return _scan_stills(video, entry)
            assert isinstance(video, PyAVReader)
            with unreadable(file):
                return _scan_video(video.source, entry)
    except UnreadableVideo as error:
        return replace(entry, status="unreadable", reason=error.reason)


def missing_entry(path: str, depth: Depth) -> Entry:
    """Build the entry of a file that does not exist."""
    return Entry(path=path, status="missing", reason="No such file or directory", depth=depth)


def _fingerprint(file: Path, size: int) -> int:
    """Hash the size and the first and last 64 KiB to a signed integer of 64 bits."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with unreadable(file), file.open("rb") as stream:
        digest.update(stream.read(_END_BYTES))
        stream.seek(max(_END_BYTES, size - _END_BYTES))
        digest.update(stream.read(_END_BYTES))
    return int.from_bytes(digest.digest(), signed=True)


def _scan_stills(video: StillReader, entry: Entry) -> Entry:
    count = len(video.times_s)
    entry = replace(entry, num_frames=count, duration_s=float(video.times_s[-1]))
    if entry.depth != "frames":
        return entry
    good, first_error = np.ones(count, bool), ""
    for number in range(count):
        try:
            video.frame(number)
        except UnreadableVideo as error:
            good[number] = False
            first_error = first_error or error.reason
    status: Status = "ok" if good.all() else "damaged" if good.any() else "unreadable"
    return replace(entry, status=status, num_decoded=int(good.sum()), reason=_not_decoded(good, first_error))


def _scan_video(source: Source, entry: Entry) -> Entry:
    video, timeline = source.scanned(), source.timeline
    duration_s, counted, announced = float(timeline.times_s[-1]), timeline.index is None, source.stream.frames
    rate = video.rate if timeline.pts is None or duration_s == 0 else None  # kept only if it is needed
    entry = replace(
        entry,
        num_frames=len(timeline.times_s),
        duration_s=duration_s,
        container=video.container,
        codec=video.codec,
        coded_height=video.coded_size[0],
        coded_width=video.coded_size[1],
        **vars(video.orientation),
        marked_damaged=video.damaged,
        time_base=str(video.time_base),
        rate=str(rate or 0),
        timeline=pack_timeline(timeline),
    )
    num_decoded, reason = entry.num_frames if counted else -1, ""
    if entry.depth == "frames":
        num_decoded, reason = _decode_all(source)
    elif source.damaged:
        num_decoded, reason = -1, "the decoder marks frames as damaged"
    if not reason and counted and entry.container == "mov" and announced > num_decoded + 1:
        reason = f"cut short: {num_decoded} of the {announced} frames that its header announces"
    return replace(entry, status="damaged" if reason else "ok", reason=reason, num_decoded=num_decoded)


def _decode_all(source: Source) -> tuple[int, str]:
    """Count the frames that decode, undamaged and at their time, past errors; return the first reason of failure."""
    pts, count = source.timeline.pts, len(source.timeline.times_s)
    numbers = None if pts is None else {time: number for number, time in enumerate(pts.tolist())}
    good, first_error = np.zeros(count, bool), ""
    delivered = further = 0
    source.restart()
    for packet in source.packets():
        try:
            frames = source.codec.decode(packet)
        except av.FFmpegError as error:
            first_error = first_error or error.strerror or type(error).__name__
            continue
        for frame in frames:
            frame_decoded()
            number = delivered if numbers is None else numbers.get(frame.pts, count)
            delivered += 1
            if number >= count:
                further += 1
            elif frame.is_corrupt:
                first_error = first_error or "damaged"
            else:
                good[number] = True
    num_decoded = int(good.sum())
    if further:
        return num_decoded, f"{further} more frames decode than the {count} that were counted"
    return num_decoded, _not_decoded(good, first_error)


def _not_decoded(good: np.ndarray, first_error: str) -> str:
    """Format the reason if some frames do not decode, or only with an error; `good` [N] is True for those that do."""
    if good.all():  # but one may be a repair, which PyAV refuses when it is read
        return f"the decoder reports an error: {first_error}" if first_error else ""
    cause = f": {first_error}" if first_error else ""
    return f"{(~good).sum()} of {len(good)} frames do not decode, the first is {good.argmin()}{cause}"


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """The scan of a data set."""

    root: Path
    paths: Sequence[str]
    """All files of all splits, each once, sorted."""
    folder: ManifestFolder
    depth: Depth = "packets"
    shard: Shard | None = None
    frame_rate: float | None = None  # of folders of images
    follow_links: bool = True
    num_workers: int = 1
    time_limit_s: float = 60.0
    """CPU time of a file without a new frame, plus one second per megabyte."""
    scan: Callable[[ScanJob], Entry] = scan_file

    @property
    def share(self) -> Sequence[str]:
        """The paths of the plan's shard."""
        return self.shard.take(self.paths) if self.shard else self.paths


def scan_set(plan: ScanPlan, progress: Progress) -> Manifest:
    """Scan the files that are new, have changed, or were scanned less deeply before; see `do_work`."""

    def entry_or_job(path: str, known: Entry | None) -> Entry | ScanJob:
        stamp = file_stamp(plan.root / path)
        if stamp is None:
            return missing_entry(path, plan.depth)
        unchanged = known and known.status != "missing" and stamp == (known.size, known.mtime_ns)
        if known and unchanged and DEPTHS.index(known.depth) >= DEPTHS.index(plan.depth):
            return known
        return ScanJob(plan.root, path, plan.depth, plan.frame_rate, plan.follow_links)

    def lost_entry(job: ScanJob, lost: Lost) -> Entry:
        stamp = file_stamp(job.root / job.path) or Stamp()
        return Entry(path=job.path, depth=job.depth, **stamp._asdict(), **lost._asdict())

    work = Work(
        title="scanning",
        names=plan.share,
        entry_or_job=entry_or_job,
        run=plan.scan,
        lost=lost_entry,
        limit_s=lambda job: limit_s(plan.time_limit_s, job.root / job.path),
    )
    return do_work(work, plan.folder, plan.shard, plan.num_workers, progress)


def limit_s(base_s: float, file: Path) -> float:
    """Return the time limit for a file, whose packets may all be read before the first frame, from a small one's."""
    return base_s + (file_stamp(file) or Stamp()).size / _BYTES_PER_S
