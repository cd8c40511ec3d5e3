"""A copy of one video that decodes fast: small, with short groups of pictures, and with exactly the same times.

A key frame at least every 32 frames, at most one B-frame in a row and x264's `fastdecode` (no arithmetic coding, no
deblocking): about four times faster to decode than x264's defaults, for a fifth more bytes at the same size.
"""

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vidtl.config.checks import require
from vidtl.data.manifest import Entry
from vidtl.data.sampling import span_indices
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, missing_entry, scan_file
from vidtl.runtime.files import flush_to_disk, inside
from vidtl.video import Box, UnreadableVideo, View, open_video
from vidtl.video.encoder import Encoder, exact_times
from vidtl.video.pyav import PyAVReader
from vidtl.video.safety import checked_path
from vidtl.video.source import unreadable

_X264 = {"preset": "medium", "tune": "fastdecode", "g": "32", "bf": "1"}
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # which concern every other file too

SPEED_NUM_FRAMES, SPEED_STRIDE, _SPEED_SIZE, _SPEED_ROUNDS = 32, 2, (224, 224), 3  # of the timed clip, uncropped


@dataclass(frozen=True)
class CopySettings:
    """Short side of copies in pixels (smaller originals keep their size), and x264's constant rate factor."""

    short_side: int = 256
    crf: int = 23

    def __post_init__(self) -> None:
        is_even = self.short_side >= 32 and self.short_side % 2 == 0
        require(is_even, "--short_side", self.short_side, "even numbers from 32 on, such as 256 or 320")
        require(0 <= self.crf <= 51, "--crf", self.crf, "0 (lossless) to 51, such as 23")


class CopyJob(NamedTuple):
    """One copy to make: scan of the original in `root`, and path of the copy in `output`."""

    root: Path
    entry: Entry
    output: Path
    target: str
    settings: CopySettings
    follow_links: bool = True


def copy_video(job: CopyJob) -> Entry:
    """Make one copy, whole or not at all, and scan it; the entry of an original that cannot be copied is `missing`.

    Frames and their times are those of the original. Rotation and mirroring are applied, sound is left out (a moment of
    silence marks the start of a file whose pictures begin later), colors keep their tags. The copy gets the original's
    modification time, by which a later run detects changes. UserError: the disk is full or read-only.
    """
    target = job.output / job.target
    temporary = inside(target.with_name(f".{target.name}.partial"), job.output)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        real = checked_path(job.root / job.entry.path, None if job.follow_links else job.root)
        with PyAVReader(real, job.entry.scanned()) as video, unreadable(real):
            _encode(video, temporary, job.settings)
        os.utime(temporary, ns=(job.entry.mtime_ns, job.entry.mtime_ns))
        copied = scan_file(ScanJob(job.output, temporary.relative_to(job.output).as_posix(), "packets"))
        _check_times(job.entry, copied)
        flush_to_disk(temporary)
        temporary.replace(target)
        return replace(copied, path=job.target)
    except (UnreadableVideo, OSError) as error:
        cause = error.__cause__ if isinstance(error, UnreadableVideo) else error
        if isinstance(cause, OSError) and cause.errno in _FATAL:
            raise UserError(f"{target} could not be written: {os.strerror(cause.errno)}") from error
        temporary.unlink(missing_ok=True)
        return not_copied(job, error.reason if isinstance(error, UnreadableVideo) else error.strerror or str(error))


def not_copied(job: CopyJob, reason: str) -> Entry:
    """Build the entry of a copy that was not made."""
    entry = missing_entry(job.target, "packets")
    return replace(entry, reason=f"not copied: {reason}", mtime_ns=job.entry.mtime_ns)


def _encode(video: PyAVReader, file: Path, settings: CopySettings) -> None:
    size = _copy_size(video.height, video.width, settings.short_side)
    encoder = Encoder(video, file, size, "libx264", **_X264, crf=str(settings.crf))
    encoder.stream.codec_context.thread_count = 1  # other files use the other cores; no bytes depend on the machine
    with encoder.container as container:
        if video.times_s[0]:
            _encode_silence(container)
        for _, picture in encoder.frames():
            container.mux(encoder.stream.encode(picture))
        container.mux(encoder.stream.encode(None))


def _encode_silence(container: av.container.OutputContainer) -> None:
    """Add a moment of silence at time 0; a file without it would start with its first picture."""
    stream = container.add_stream("aac", rate=8000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    container.mux(stream.encode(frame) + stream.encode(None))


def _copy_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return height and width of a copy: even, in proportion, and never larger than the original."""
    scale = min(1.0, short_side / min(height, width))
    even = (max(2, min(2 * round(side * scale / 2), side // 2 * 2)) for side in (height, width))
    return next(even), next(even)


def _check_times(original: Entry, copied: Entry) -> None:
    """Raise UnreadableVideo unless both have the same frames at exactly the same times after the first."""
    times = []
    for video in (original.scanned(), copied.scanned() if copied.status == "ok" else None):
        if video is None:
            raise UnreadableVideo(Path(original.path), f"its copy cannot be read: {copied.reason}")
        pts, unit = exact_times(video)
        times.append([(time - pts[0]) * unit for time in pts])
    if times[0] != times[1]:
        change = f"{len(times[0])} frames became {len(times[1])}"
        raise UnreadableVideo(Path(original.path), f"its copy has other times ({change})")


Pair = tuple[tuple[Path, Entry], tuple[Path, Entry]]
"""An original and its copy, each as a root and its entry."""


def measure_speed(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Decode the same clip of each original and of its copy in turns, and return clips per CPU second of both."""
    rounds = range(_SPEED_ROUNDS + 1)
    seconds = [[[_clip_s(*video, seed) for video in pair] for pair in pairs] for seed in rounds]
    # The first round pays for imports and the disk's cache.
    originals, copies = (len(pairs) / np.median(np.sum(seconds, axis=1)[1:], axis=0)).tolist()
    return originals, copies


def _clip_s(root: Path, entry: Entry, seed: int) -> float:
    span = (SPEED_NUM_FRAMES - 1) * SPEED_STRIDE + 1
    first = int(np.random.default_rng(seed).integers(max(1, entry.num_frames - span + 1)))
    indices = span_indices(first, SPEED_NUM_FRAMES, SPEED_STRIDE, entry.num_frames, "hold")
    start = time.process_time()
    with open_video(root / entry.path, scanned=entry.scanned()) as video:
        video.read([View(indices, Box(0, 0, video.height, video.width))], _SPEED_SIZE, "planar")
    return time.process_time() - start
