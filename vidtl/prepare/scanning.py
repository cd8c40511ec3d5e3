"""Scanning all files of a set into its manifest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidtl.data.manifest import Manifest, Stamp, file_stamp
from vidtl.data.manifest_entry import DEPTHS, Depth, Entry
from vidtl.prepare.children import Lost
from vidtl.prepare.scan import ScanJob, missing_entry, scan_file
from vidtl.prepare.shards import ManifestFolder
from vidtl.prepare.work import Work, do_work
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard

# Beyond the time limit: a second for each megabyte, since large files take longer.
_BYTES_PER_S = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """What is scanned, and how."""

    root: Path
    paths: Sequence[str]
    """All files of all splits, each once, sorted."""
    folder: ManifestFolder
    depth: Depth = "packets"
    shard: Shard | None = None
    frame_rate: float | None = None
    """Of folders of images."""
    num_workers: int = 1
    time_limit_s: float = 60.0
    """For each file, plus one second per megabyte."""
    scan: Callable[[ScanJob], Entry] = scan_file

    @property
    def share(self) -> Sequence[str]:
        """The paths of the plan's shard."""
        return self.shard.take(self.paths) if self.shard else self.paths


def scan_set(plan: ScanPlan, progress: Progress) -> Manifest:
    """Scan the plan's files, but for those that an earlier scan of this depth knows and that have not changed.

    Raises:
        StoppedBySignalError, UserError: see `do_work`.
    """

    def outcome_or_job(path: str, known: Entry | None) -> Entry | ScanJob:
        stamp = file_stamp(plan.root / path)
        if stamp is None:
            return missing_entry(path, plan.depth)
        unchanged = known and known.status != "missing" and stamp == (known.size, known.mtime_ns)
        if known and unchanged and DEPTHS.index(known.depth) >= DEPTHS.index(plan.depth):
            return known
        return ScanJob(plan.root, path, plan.depth, plan.frame_rate)

    work = Work(
        title=f"scanning {plan.shard.name}" if plan.shard else "scanning",
        names=plan.share,
        outcome_or_job=outcome_or_job,
        run=plan.scan,
        lost=_lost_entry,
        limit_s=lambda job: limit_s(plan.time_limit_s, job.root / job.path, whole_folders=job.depth == "frames"),
    )
    return do_work(work, plan.folder, plan.shard, plan.num_workers, progress)


def limit_s(base_s: float, file: Path, whole_folders: bool = False) -> float:
    """How long work on a file, or on every image of a folder, may take, given the limit for small ones."""
    files = [file, *file.glob("*")] if whole_folders else [file]
    return base_s + sum(stamp.size for stamp in map(file_stamp, files) if stamp) / _BYTES_PER_S


def _lost_entry(job: ScanJob, lost: Lost) -> Entry:
    size, mtime_ns = file_stamp(job.root / job.path) or Stamp(0, 0)
    return Entry(path=job.path, status=lost.kind, reason=lost.reason, depth=job.depth, size=size, mtime_ns=mtime_ns)
