"""Scanning all files of a set: in parallel, in shards, and so that nothing scanned is ever lost."""

import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from vidtl.data.manifest import FILE_NAME, FOLDER, Manifest, Stamp, file_stamp
from vidtl.data.manifest_entry import DEPTHS, Depth, Entry
from vidtl.data.preparation.children import Children, Lost
from vidtl.data.preparation.journal import Journal
from vidtl.data.preparation.scan import ScanJob, missing_entry, scan_file
from vidtl.errors import UserError
from vidtl.runtime.launch import StoppedBySignalError
from vidtl.runtime.progress import Progress
from vidtl.runtime.signals import StopSignals

# Beyond the time limit: a second for each megabyte, since large files take longer.
_BYTES_PER_S = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1: every count-th file, so that parts are even and depend on nothing else."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `2/8`; UserError for anything that is not i/n with 1 <= i <= n."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard is {text!r}; allowed: i/n with i from 1 to n, such as 2/8")
        return cls(int(match[1]), int(match[2]))

    def take(self, paths: Sequence[str]) -> Sequence[str]:
        """This part's paths."""
        return paths[self.number - 1 :: self.count]

    @property
    def name(self) -> str:
        """For file names."""
        return f"part-{self.number}-of-{self.count}"


@dataclass(frozen=True)
class ScanFolder:
    """Where a scan keeps what it writes."""

    path: Path

    @classmethod
    def of(cls, root: Path, output: Path | None) -> Self:
        """The folder given, or the one in the data root."""
        return cls(output or root / FOLDER)

    @property
    def manifest(self) -> Path:
        return self.path / FILE_NAME

    def part(self, shard: Shard) -> Path:
        """Manifest of one shard."""
        return self.path / f"{shard.name}.npz"

    def journal(self, shard: Shard | None, kind: str = "scan") -> Path:
        """Unfinished results."""
        return self.path / f"{kind}{f'-{shard.name}' if shard else ''}.jsonl"

    def parts(self) -> dict[Shard, Path]:
        """Parts that are there."""
        found = {}
        for file in sorted(self.path.glob("part-*-of-*.npz")):
            match = re.fullmatch(r"part-(\d+)-of-(\d+)\.npz", file.name)
            if match:
                found[Shard(int(match[1]), int(match[2]))] = file
        return found


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """What is scanned, and how."""

    root: Path
    paths: Sequence[str]
    """All files of all splits, each once, sorted."""
    folder: ScanFolder
    depth: Depth = "packets"
    shard: Shard | None = None
    frame_rate: float | None = None
    """Of folders of images."""
    num_workers: int = 1
    time_limit_s: float = 60.0
    """For each file, plus one second per megabyte."""
    scan: Callable[[ScanJob], Entry] = field(default=scan_file)

    @property
    def share(self) -> Sequence[str]:
        """The paths of the plan's shard."""
        return self.shard.take(self.paths) if self.shard else self.paths

    def limit_s(self, job: ScanJob) -> float:
        """How long one file may take."""
        stamp = file_stamp(job.root / job.path)
        return self.time_limit_s + (stamp.size / _BYTES_PER_S if stamp else 0)


def scan_set(plan: ScanPlan, progress: Progress) -> Manifest:
    """Scan the plan's files, but for those that an earlier scan of this depth knows and that have not changed.

    Writes the manifest, or the shard's part of it. The number of workers and interruptions change nothing in it.

    Raises:
        StoppedBySignalError: what was scanned is kept for the next call.
        UserError: the folder cannot be written, or another process is at it.
    """
    folder, shard = plan.folder, plan.shard
    with Journal(folder.journal(shard)) as journal:
        earlier = _earlier_entries(folder, shard)
        # Hung and crashed files get another chance in a new run, but not when an interrupted one goes on.
        known = {path: entry for path, entry in earlier.items() if entry.status not in ("hung", "crashed")}
        known |= _journal_entries(journal)
        entries = _scan(plan, known, journal, progress)
        if shard is None:
            entries = list((earlier | {entry.path: entry for entry in entries}).values())
        manifest = Manifest.from_entries(entries, folder.part(shard) if shard else folder.manifest)
        manifest.save()
        journal.delete()
    if shard is None:
        for part in folder.parts().values():
            part.unlink()
    return manifest


def merge_parts(plan: ScanPlan) -> Manifest:
    """Join the parts that shards wrote into the manifest, and remove them.

    Raises:
        UserError: parts are missing, or do not cover the annotated files.
    """
    folder = plan.folder
    parts = folder.parts()
    if not parts:
        raise UserError(f"{folder.path} has no parts to join; --shard i/n writes them")
    count = max(shard.count for shard in parts)
    missing = missing_parts(parts)
    if missing:
        raise UserError(
            f"{folder.path}: {len(missing)} of {count} parts are missing: {', '.join(map(str, missing))}; "
            f"run --shard {missing[0]}/{count} and so on, or leave --merge out to scan their files now"
        )
    entries = _earlier_entries(folder, None)
    absent = [path for path in plan.paths if path not in entries]
    if absent:
        raise UserError(
            f"{folder.path}: the parts lack {len(absent)} annotated files, {absent[0]!r} among them; "
            "leave --merge out to scan them now"
        )
    manifest = Manifest.from_entries(entries.values(), folder.manifest)
    manifest.save()
    for part in parts.values():
        part.unlink()
    return manifest


def missing_parts(parts: Iterable[Shard]) -> list[int]:
    """Numbers of the parts that are not there, of as many as the largest count among those that are."""
    shards = list(parts)
    count = max((shard.count for shard in shards), default=0)
    there = {shard.number for shard in shards if shard.count == count}
    return [number for number in range(1, count + 1) if number not in there]


def _earlier_entries(folder: ScanFolder, shard: Shard | None) -> dict[str, Entry]:
    """What finished scans found, the latest last."""
    files = [folder.part(shard)] if shard else list(folder.parts().values())
    files = [folder.manifest, *files]
    return {entry.path: entry for file in files if file.is_file() for entry in Manifest.load(file)}


def _journal_entries(journal: Journal) -> dict[str, Entry]:
    try:
        entries = [Entry.from_json(fields) for fields in journal.entries]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{journal.file} is not the journal of a scan ({error}); delete it") from error
    return {entry.path: entry for entry in entries}


def _scan(plan: ScanPlan, known: dict[str, Entry], journal: Journal, progress: Progress) -> list[Entry]:
    share = plan.share
    found: list[Entry] = []

    def remaining() -> Iterator[ScanJob]:
        for path in share:
            stamp = file_stamp(plan.root / path)
            entry = known.get(path)
            if stamp is None:
                found.append(missing_entry(path, plan.depth))
            elif entry and _is_current(entry, stamp, plan.depth):
                found.append(entry)
            else:
                yield ScanJob(plan.root, path, plan.depth, plan.frame_rate)

    num_broken = 0
    title = f"scanning {plan.shard.name}" if plan.shard else "scanning"
    with (
        StopSignals() as signals,
        progress.task(title, "files", len(share)) as task,
        Children(plan.scan, plan.num_workers, plan.limit_s) as children,
    ):
        for job, result in children.run(remaining(), lambda: bool(signals.signum)):
            entry = _lost_entry(job, result) if isinstance(result, Lost) else result
            found.append(entry)
            journal.append(entry.to_json())
            num_broken += entry.status != "ok"
            task.update(len(found), {"broken": str(num_broken)})
        task.update(len(found), {"broken": str(num_broken)})
    check_stop(signals, journal, f"{len(found)} of {len(share)} files are scanned")
    return found


def check_stop(signals: StopSignals, journal: Journal, so_far: str) -> None:
    """Raise StoppedBySignalError if a signal came; everything done is on the disk then."""
    if signals.signum:
        journal.sync()
        name = signal.Signals(signals.signum).name
        raise StoppedBySignalError(signals.signum, f"stopped by {name}: {so_far}, the same command goes on from there")


def _is_current(entry: Entry, stamp: Stamp, depth: Depth) -> bool:
    deep_enough = DEPTHS.index(entry.depth) >= DEPTHS.index(depth)
    return deep_enough and entry.status != "missing" and stamp == (entry.size, entry.mtime_ns)


def _lost_entry(job: ScanJob, lost: Lost) -> Entry:
    stamp = file_stamp(job.root / job.path) or Stamp(0, 0)
    return Entry(
        path=job.path,
        status=lost.kind,
        reason=lost.reason,
        depth=job.depth,
        size=stamp.size,
        mtime_ns=stamp.mtime_ns,
    )
