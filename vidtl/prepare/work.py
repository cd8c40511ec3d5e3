"""Work on every file of a data set in killable processes: stopped and continued at any time, with the same outcome.

A file that hangs or crashes its decoder costs that one file, and only if it does so again when no other process works.
Processes are started by a server (forkserver), not forked, since the caller has threads.
"""

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pebble import CONSTS, ProcessExpired, ProcessPool

from vidtl.data.manifest import Entry, Manifest
from vidtl.errors import UserError
from vidtl.prepare.manifest import COMMIT_EVERY_S, ManifestFolder, Results
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard
from vidtl.runtime.signals import StoppedBySignalError, StopSignals, ignore_stop_signals
from vidtl.video.limits import cause_of_death, count_frames_in, limited, signal_name, wall_s

Job = TypeVar("Job")

_TICK_S = 0.2  # between two checks for signals and for a commit that is due
_MOST_POOLS = 5
_LATE_S = 5.0  # wall time beyond that of `limited`, after which a job's process is taken for dead
_CONTEXT = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")


class Lost(NamedTuple):
    """The end of a process that gave no result."""

    status: Literal["crashed", "hung"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Work(Generic[Job]):
    """A function of each file whose result is an entry of a manifest."""

    title: str
    names: Sequence[str]
    """Paths of the entries, each once."""
    entry_or_job: Callable[[str, Entry | None], Entry | Job]
    """(name, earlier entry) -> the entry if there is nothing to do, else the job."""
    run: Callable[[Job], Entry]
    """Called in another process; UserError is for faults that concern more than one file."""
    lost: Callable[[Job, Lost], Entry]
    """Entry of a file that hung or crashed its process."""
    limit_s: Callable[[Job], float]
    """Limit of a job's CPU time without a new frame; see `limited`."""


def do_work(
    work: Work[Job], folder: ManifestFolder, shard: Shard | None, num_workers: int, progress: Progress
) -> Manifest:
    """Do the work that is not done yet and write the manifest, or the shard's part of it.

    StoppedBySignalError: finished work is kept for the next call. UserError: the folder cannot be written or is in
    use, `work.run` raised it, or the first files all exceed their time limits, of which nothing is kept.
    """
    num_done = num_broken = 0
    title = f"{work.title} {shard.name if shard else ''}".rstrip()
    frames = _CONTEXT.Value("q", lock=False)  # without a lock, which a killed process would keep; for display alone
    with Results(folder, shard) as results:
        with StopSignals() as signals, progress.task(title, "files", len(work.names)) as task:

            def should_stop() -> bool:
                results.commit(COMMIT_EVERY_S)
                task.update(num_done, {"broken": str(num_broken), "decoded": f"{frames.value:,} frames"})
                return bool(signals.signum)

            with closing(_entries(work, results, num_workers, frames, should_stop)) as entries:
                for entry in entries:
                    results.add(entry)
                    num_done += 1
                    num_broken += entry.status != "ok"
        if signals.signum:
            results.commit()
            done = f"stopped by {signal.Signals(signals.signum).name} at {num_done} of {len(work.names)} files"
            raise StoppedBySignalError(signals.signum, f"{done}; the same command continues")
        return results.finish()


def _entries(
    work: Work[Job], results: Results, num_workers: int, frames: Any, should_stop: Callable[[], bool]
) -> Generator[Entry]:
    """Yield the entries in the order of completion, until `should_stop`; try lost files again, alone, at the end."""
    left = dict.fromkeys(work.names)
    for number in range(1, _MOST_POOLS + 1):
        try:
            for entry in _entries_of_pool(replace(work, names=[*left]), results, num_workers, frames, should_stop):
                del left[entry.path]
                yield entry
            return
        except RuntimeError:  # pebble's pool breaks if a process dies before the pool knows which job it has
            if number == _MOST_POOLS:
                raise


def _entries_of_pool(
    work: Work[Job], results: Results, num_workers: int, frames: Any, should_stop: Callable[[], bool]
) -> Generator[Entry]:
    scheduled: dict[Future[Entry], Job] = {}
    lost: list[Job] = []
    one_in_time = False
    with _killable_pool(num_workers, work.run, frames) as pool:

        def schedule(job: Job) -> None:
            limit_s = work.limit_s(job)
            scheduled[pool.schedule(_run_job, (work.run, job, limit_s), timeout=wall_s(limit_s) + _LATE_S)] = job

        def ended(fewer_than: int) -> Iterator[tuple[Job, Entry | Lost]]:
            while not should_stop() and len(scheduled) >= fewer_than:
                for future in wait(scheduled, _TICK_S, FIRST_COMPLETED).done:
                    job = scheduled.pop(future)
                    yield job, _outcome(future, work.limit_s(job))

        for name in (*work.names, None):
            found = work.entry_or_job(name, results.find(name)) if name is not None else None
            if isinstance(found, Entry):
                one_in_time |= found.status not in ("missing", "hung")
                yield found
            elif found is not None:
                schedule(found)
            # Jobs beyond the number of processes wait in the pool, so that no process is idle.
            for job, outcome in ended(2 * num_workers if name is not None else 1):
                one_in_time |= outcome.status != "hung"
                if isinstance(outcome, Entry):
                    yield outcome
                else:
                    lost.append(job)
            if not one_in_time and len(lost) >= (2 * num_workers if name is not None else 2):
                fault = f"the first {len(lost)} files all exceeded their time limit, {work.limit_s(lost[0]):g} s"
                remedy = f"allow more --time_limit or less than {num_workers} --workers"
                raise UserError(f"{fault}; slow machine or disk: {remedy}")
            if should_stop():
                return
        for job in lost:
            schedule(job)
            for _, outcome in ended(1):
                yield outcome if isinstance(outcome, Entry) else work.lost(job, outcome)


def _outcome(future: "Future[Entry]", limit_s: float) -> Entry | Lost:
    try:
        return future.result()
    except TimeoutError:  # its process died before the pool knew which job it had, or was stopped from outside
        return Lost("crashed", f"the decoder's process gave no result in {wall_s(limit_s) + _LATE_S:g} s")
    except ProcessExpired as error:
        code = error.exitcode or 0
        return Lost("hung" if signal_name(code) in ("SIGPROF", "SIGALRM") else "crashed", cause_of_death(code, limit_s))


@contextmanager
def _killable_pool(num_workers: int, function: Callable[..., object], frames: Any) -> Iterator[ProcessPool]:
    _CONTEXT.set_forkserver_preload([__name__, function.__module__])  # import once, not in every process
    CONSTS.term_timeout = 0  # the processes ignore SIGTERM: kill at once
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # which every process would import, with all that it imports
    pool = ProcessPool(num_workers, initializer=_start_process, initargs=(frames,), context=_CONTEXT)
    try:
        yield pool
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()
        sys.modules["__main__"] = main


def _start_process(frames: Any) -> None:
    """Leave signals to the caller, and count frames for it."""
    ignore_stop_signals()
    count_frames_in(frames)


def _run_job(function: Callable[[Job], Entry], job: Job, limit_s: float) -> Entry:
    with limited(limit_s):
        return function(job)


def usable_cores(cgroups: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> int:
    """Return the cores that this process may use: its affinity, and the CPU quotas of its control groups (v1, v2)."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    groups = Path(own).read_text().splitlines() if os.path.exists(own) else []
    places = [Path(f"{cgroups}/{controllers}/{path}") for _, controllers, path in (g.split(":", 2) for g in groups)]
    for folder in {folder for place in places for folder in (place, *place.parents)}:
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            with suppress(OSError, ValueError):  # no such file; "max"
                quota, period = map(float, " ".join((folder / name).read_text() for name in names).split())
                cores = min(cores, quota / period) if quota > 0 else cores
    return max(1, math.ceil(cores))
