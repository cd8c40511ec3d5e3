"""Looking into one file: what the decoding package finds, and whether every frame decodes."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from vidtl.data.manifest import file_stamp
from vidtl.data.manifest_entry import Depth, Entry, Status
from vidtl.video import UnreadableVideo, open_video
from vidtl.video.images import StillReader
from vidtl.video.pyav import PyAVReader
from vidtl.video.source import Source, unreadable

# What is read of either end of a file to tell whether two could be the same.
_END_BYTES = 64 << 10


@dataclass(frozen=True)
class ScanJob:
    """One file to look into."""

    root: Path
    path: str
    """Relative to the root."""
    depth: Depth
    frame_rate: float | None = None
    """Of folders of images."""


def scan_file(job: ScanJob) -> Entry:
    """Everything the manifest says about one file.

    `packets`: the file opens, every packet has a time, and where packets do not prove how many frames there are, the
    whole file was decoded. `frames`: every frame was decoded and has the time of its packet. Of a folder of images,
    `packets` reads the names and one header, `frames` every image.
    """
    file = job.root / job.path
    stamp = file_stamp(file)
    if stamp is None:
        return missing_entry(job.path, job.depth)
    entry = Entry(path=job.path, status="ok", reason="", depth=job.depth, size=stamp.size, mtime_ns=stamp.mtime_ns)
    try:
        with open_video(file, "pyav", job.root, job.frame_rate) as video:
            if file.is_file():
                entry = replace(entry, fingerprint=fingerprint(file, stamp.size))
            if isinstance(video, StillReader):
                return _scan_stills(video, entry)
            assert isinstance(video, PyAVReader)
            with unreadable(file):
                return _scan_video(video.source, entry)
    except UnreadableVideo as error:
        return replace(entry, status="unreadable", reason=error.reason)


def missing_entry(path: str, depth: Depth) -> Entry:
    """A file that is not there."""
    return Entry(path=path, status="missing", reason="No such file or directory", depth=depth)


def fingerprint(file: Path, size: int) -> int:
    """64 bits of the size and of the first and last 64 KiB."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with unreadable(file), file.open("rb") as stream:
        digest.update(stream.read(_END_BYTES))
        if size > _END_BYTES:
            stream.seek(max(_END_BYTES, size - _END_BYTES))
            digest.update(stream.read(_END_BYTES))
    return int.from_bytes(digest.digest())


def _scan_stills(video: StillReader, entry: Entry) -> Entry:
    count = len(video.times_s)
    entry = replace(entry, num_frames=count, duration_s=float(video.times_s[-1]))
    if entry.depth != "frames":
        return entry
    good = np.zeros(count, bool)
    first_error = ""
    for number in range(count):
        try:
            video.frame(number)
            good[number] = True
        except UnreadableVideo as error:
            first_error = first_error or error.reason
    if good.all():
        return replace(entry, num_decoded=count)
    status: Status = "damaged" if good.any() else "unreadable"
    return replace(entry, status=status, reason=_not_decoded(good, first_error), num_decoded=int(good.sum()))


def _scan_video(source: Source, entry: Entry) -> Entry:
    entry = entry.with_video(source.scanned())
    counted, announced = source.timeline.index is None, source.stream.frames
    num_decoded, reason = entry.num_frames if counted else -1, ""
    if entry.depth == "frames":
        num_decoded, reason = _decode_all(source)
    elif source.damaged:
        num_decoded, reason = -1, "the decoder marks frames as damaged"
    if not reason and counted and entry.stream and entry.stream.container == "mov" and announced > num_decoded + 1:
        reason = f"cut short: {num_decoded} of the {announced} frames that its header announces"
    return replace(entry, status="damaged" if reason else "ok", reason=reason, num_decoded=num_decoded)


def _decode_all(source: Source) -> tuple[int, str]:
    """How many frames decode, undamaged and at their time, and what is wrong with the first that does not.

    Goes on after an error, as readers do that seek to what comes after it.
    """
    pts, count = source.timeline.pts, len(source.timeline.times_s)
    good = np.zeros(count, bool)
    delivered = further = 0
    first_error = ""
    source.restart()
    for packet in source.packets():
        try:
            frames = source.codec.decode(packet)
        except av.FFmpegError as error:
            first_error = first_error or error.strerror or type(error).__name__
            continue
        for frame in frames:
            number = delivered if pts is None else _number(frame.pts, pts)
            delivered += 1
            if number is None or number >= count:
                further += 1
            elif frame.is_corrupt:
                first_error = first_error or "damaged"
            else:
                good[number] = True
    num_decoded = int(good.sum())
    if further:
        return num_decoded, f"{further} more frames decode than the {count} that were counted"
    if num_decoded < count:
        return num_decoded, _not_decoded(good, first_error)
    # All frames are there, but one may be a repair: reading it through PyAV would be refused too.
    return num_decoded, f"the decoder reports an error: {first_error}" if first_error else ""


def _not_decoded(good: np.ndarray, first_error: str) -> str:
    """What is wrong where some frames do not decode; `good` [N] says which do."""
    cause = f": {first_error}" if first_error else ""
    return f"{(~good).sum()} of {len(good)} frames do not decode, the first is {good.argmin()}{cause}"


def _number(frame_pts: int | None, pts: np.ndarray) -> int | None:
    """Number of a decoded frame in the timeline, by its time."""
    place = int(np.searchsorted(pts, frame_pts)) if frame_pts is not None else len(pts)
    return place if place < len(pts) and pts[place] == frame_pts else None
