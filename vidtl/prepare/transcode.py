"""A copy of one video that decodes fast: small, with short groups of pictures, and with exactly the same times.

A key frame at least every 32 frames, at most one B-frame in a row and x264's `fastdecode` (no arithmetic coding, no
deblocking): about four times faster to decode than x264's defaults, for a fifth more bytes at the same size.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vidtl.data.manifest_entry import Entry
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, missing_entry, scan_file
from vidtl.video import Box, UnreadableVideo, View, open_video
from vidtl.video.color import Converter
from vidtl.video.reader import Matrix
from vidtl.video.safety import checked_path, sniff_container
from vidtl.video.source import Source, unreadable
from vidtl.video.timeline import Timeline

GOP = 32

# H.273: MatrixCoefficients as FFmpeg numbers them, and its two ranges.
_MATRIX_CODES: dict[Matrix, int] = {"bt709": 1, "bt601": 6, "bt2020": 9}
_LIMITED, _FULL = 1, 2

# Errors of the disk, which no other file would escape.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class CopySettings:
    """Settings of copies."""

    short_side: int = 256
    """Pixels; smaller originals keep their size."""
    crf: int = 23
    """x264's constant rate factor: lower is better, larger and slower to decode."""

    def __post_init__(self) -> None:
        if self.short_side < 32 or self.short_side % 2:
            raise UserError(f"--short_side is {self.short_side}; allowed: even numbers from 32 on, such as 256 or 320")
        if not 0 <= self.crf <= 51:
            raise UserError(f"--crf is {self.crf}; allowed: 0 (lossless) to 51, such as 23")


@dataclass(frozen=True)
class CopyJob:
    """One copy to make."""

    root: Path
    entry: Entry
    """The original, as its scan found it."""
    output: Path
    target: str
    """Relative to `output`."""
    settings: CopySettings


def copy_video(job: CopyJob) -> Entry:
    """Make one copy, whole or not at all, and scan it; the entry of an original that cannot be copied is `missing`.

    Frames and their times are those of the original: anything else is an error. Rotation and mirroring are applied,
    sound is left out, colors stay as they are tagged. The copy's modification time is the original's, by which a later
    run finds out whether it is up to date.

    Raises:
        UserError: the disk is full or read-only.
    """
    target = job.output / job.target
    temporary = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        real = checked_path(job.root / job.entry.path, job.root)
        source = Source(real, sniff_container(real), job.entry.scanned())
        try:
            with unreadable(real):
                _encode(source, temporary, job.settings)
        finally:
            source.close()
        os.utime(temporary, ns=(job.entry.mtime_ns, job.entry.mtime_ns))
        copied = scan_file(ScanJob(job.output, temporary.relative_to(job.output).as_posix(), "packets"))
        _check_times(job.entry, copied)
        _to_disk(temporary)
        temporary.replace(target)
        return replace(copied, path=job.target)
    except UnreadableVideo as error:
        _raise_if_fatal(target, error.__cause__)
        temporary.unlink(missing_ok=True)
        return not_copied(job, error.reason)
    except OSError as error:
        _raise_if_fatal(target, error)
        temporary.unlink(missing_ok=True)
        return not_copied(job, error.strerror or str(error))


def not_copied(job: CopyJob, reason: str) -> Entry:
    """Build the entry of a copy that was not made."""
    entry = missing_entry(job.target, "packets")
    return replace(entry, reason=f"not copied: {reason}", mtime_ns=job.entry.mtime_ns)


def copy_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return height and width of a copy: even, in proportion, and never larger than the original."""
    scale = min(1.0, short_side / min(height, width))
    return _even(height * scale, height), _even(width * scale, width)


def _even(wanted: float, limit: int) -> int:
    return max(2, min(2 * round(wanted / 2), limit - limit % 2))


def _encode(source: Source, file: Path, settings: CopySettings) -> None:
    orientation = source.orientation
    height, width = copy_size(*orientation.displayed_size(*source.coded_size), settings.short_side)
    converter = Converter(orientation.displayed_size(height, width), source.color, "planar")
    pts, time_base = exact_times(source.timeline, Fraction(source.stream.time_base), source.stream.average_rate)
    options = {"preset": "medium", "tune": "fastdecode", "crf": str(settings.crf), "g": str(GOP), "bf": "1"}
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        rate = Fraction(source.timeline.fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate or 1, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1  # other files use the other cores, and the bytes do not depend on the machine
        codec.time_base = stream.time_base = time_base
        codec.colorspace = _MATRIX_CODES[source.color.matrix]
        codec.color_range = _FULL if source.color.full_range else _LIMITED
        for number, frame in enumerate(_checked_frames(source)):
            planes = [orientation.apply(plane) for plane in converter.planes(frame)]
            picture = _picture(planes)
            picture.pts, picture.time_base = pts[number] - pts[0], time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _checked_frames(source: Source) -> Iterator[av.VideoFrame]:
    """Yield all frames; UnreadableVideo for one that is damaged or not at its time."""
    pts, count = source.timeline.pts, len(source.timeline.times_s)
    number = -1
    for number, frame in enumerate(source.decode_from_start()):
        if frame.is_corrupt:
            raise UnreadableVideo(source.path, f"frame {number} is damaged")
        if number >= count or (pts is not None and frame.pts != pts[number]):
            raise UnreadableVideo(source.path, f"frame {number} decodes at another time than its packet or scan says")
        if source.frame_orientation(frame) != source.orientation:
            raise UnreadableVideo(source.path, "its frames are rotated in a way that its header does not announce")
        yield frame
    if number + 1 < count:
        raise UnreadableVideo(source.path, f"frame {number + 1} does not decode")


def _picture(planes: list[np.ndarray]) -> av.VideoFrame:
    """Pack I420 planes into a frame for the encoder."""
    height, width = planes[0].shape
    packed = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in planes])
    return av.VideoFrame.from_ndarray(packed.reshape(height * 3 // 2, width), format="yuv420p")


def exact_times(timeline: Timeline, time_base: Fraction, rate: Fraction | None) -> tuple[list[int], Fraction]:
    """Return the times of all frames as integers, and their unit in seconds."""
    if timeline.pts is not None:
        return timeline.pts.tolist(), time_base
    return list(range(len(timeline.times_s))), 1 / Fraction(rate or Fraction(timeline.fps))


def _check_times(original: Entry, copied: Entry) -> None:
    """Raise UnreadableVideo unless both have the same frames at exactly the same times after the first."""
    times = []
    for entry in (original, copied):
        video = entry.scanned() if entry.status == "ok" or entry is original else None
        if video is None:
            raise UnreadableVideo(Path(original.path), f"its copy cannot be read: {entry.reason}")
        pts, unit = exact_times(video.timeline, video.time_base, video.rate)
        times.append([(time - pts[0]) * unit for time in pts])
    if times[0] != times[1]:
        counts = f"{len(times[0])} frames became {len(times[1])}"
        raise UnreadableVideo(Path(original.path), f"its copy has other times ({counts})")


def _to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _raise_if_fatal(target: Path, error: BaseException | None) -> None:
    if isinstance(error, OSError) and error.errno in _FATAL:
        raise UserError(f"{target} could not be written: {os.strerror(error.errno)}")


SPEED_NUM_FRAMES, SPEED_STRIDE, _SPEED_SIZE = 32, 2, (224, 224)
"""The clip that is timed, uncropped."""
_SPEED_ROUNDS = 3


class Pair(NamedTuple):
    """An original and its copy, each as a root and its entry."""

    original: tuple[Path, Entry]
    copy: tuple[Path, Entry]


def measure_speed(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Decode the same clip of each original and of its copy in turns, and return clips per CPU second of both."""
    rounds = []
    for number in range(_SPEED_ROUNDS + 1):
        seconds = np.zeros(2)
        for pair in pairs:
            for side, (root, entry) in enumerate(pair):
                seconds[side] += _clip_s(root, entry, seed=number)
        rounds.append(seconds)
    # The first round pays for imports and the disk's cache.
    originals, copies = (len(pairs) / np.median(rounds[1:], axis=0)).tolist()
    return originals, copies


def _clip_s(root: Path, entry: Entry, seed: int) -> float:
    span = (SPEED_NUM_FRAMES - 1) * SPEED_STRIDE + 1
    first = int(np.random.default_rng(seed).integers(max(1, entry.num_frames - span + 1)))
    indices = np.minimum(first + SPEED_STRIDE * np.arange(SPEED_NUM_FRAMES), entry.num_frames - 1)
    start = time.process_time()
    with closing(open_video(root / entry.path, "pyav", root, scanned=entry.scanned())) as video:
        video.read([View(indices, Box(0, 0, video.height, video.width))], _SPEED_SIZE, "planar")
    return time.process_time() - start
