"""Work on every file of a data set in killable processes: stopped and continued at any time, with the same outcome.

A file that hangs or crashes its decoder costs that one file. Processes are started by a server (forkserver), not
forked, since the caller has threads.
"""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from pebble import CONSTS, ProcessExpired, ProcessPool

from vidtl.data.manifest import Entry, Manifest
from vidtl.prepare.manifest import ManifestFolder, Results
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard
from vidtl.runtime.signals import StoppedBySignalError, StopSignals

Job = TypeVar("Job")

MEMORY_BYTES = 4 << 30
"""Memory of a process beyond its initial one; the largest pictures allowed need about 2 GiB."""

_TICK_S = 0.2  # between two checks for signals and for a commit that is due
_ALARM_MARGIN_S = 5.0  # after its limit, a process whose caller is gone ends itself


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
    """Time limit of a job."""


def do_work(
    work: Work[Job], folder: ManifestFolder, shard: Shard | None, num_workers: int, progress: Progress
) -> Manifest:
    """Do the work that is not done yet and write the manifest, or the shard's part of it.

    Raises:
        StoppedBySignalError: finished work is kept for the next call.
        UserError: the folder cannot be written, another process is writing it, or `work.run` raised it.
    """
    num_done = num_broken = 0
    title = f"{work.title} {shard.name}" if shard else work.title
    with Results(folder, shard) as results:
        with (
            StopSignals() as signals,
            progress.task(title, "files", len(work.names)) as task,
            closing(_entries(work, results, num_workers, lambda: bool(signals.signum))) as entries,
        ):
            for entry in entries:
                results.add(entry)
                num_done += 1
                num_broken += entry.status != "ok"
                task.update(num_done, {"broken": str(num_broken)})
        if signals.signum:
            results.commit()
            done = f"stopped by {signal.Signals(signals.signum).name} at {num_done} of {len(work.names)} files"
            raise StoppedBySignalError(signals.signum, f"{done}; the same command continues")
        return results.finish()


def _entries(work: Work[Job], results: Results, num_workers: int, should_stop: Callable[[], bool]) -> Generator[Entry]:
    """Yield the entries in the order of completion, until `should_stop`."""
    scheduled: dict[Future[Entry], Job] = {}
    with _killable_pool(num_workers, work.run) as pool:
        for name in (*work.names, None):
            outcome = work.entry_or_job(name, results.find(name)) if name is not None else None
            if isinstance(outcome, Entry):
                yield outcome
            elif outcome is not None:
                limit_s = work.limit_s(outcome)
                scheduled[pool.schedule(_run_job, (work.run, outcome, limit_s), timeout=limit_s)] = outcome
            # Jobs beyond the number of processes wait in the pool, so that no process is idle.
            while len(scheduled) >= (2 * num_workers if name is not None else 1) and not should_stop():
                for future in wait(scheduled, _TICK_S, FIRST_COMPLETED).done:
                    yield _entry(work, scheduled.pop(future), future)
                results.commit_if_due()
            if should_stop():
                return


def _entry(work: Work[Job], job: Job, future: "Future[Entry]") -> Entry:
    try:
        return future.result()
    except TimeoutError:
        return work.lost(job, Lost("hung", f"no result within {work.limit_s(job):.0f} s"))
    except ProcessExpired as error:
        return work.lost(job, Lost("crashed", _cause_of_death(error.exitcode or 0)))


@contextmanager
def _killable_pool(num_workers: int, function: Callable[..., object]) -> Iterator[ProcessPool]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", function.__module__])  # import once, not in every process
    CONSTS.term_timeout = 0  # the processes ignore SIGTERM: kill at once
    pool = ProcessPool(num_workers, initializer=_start_process, context=context)
    try:
        yield pool
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _start_process() -> None:
    """Leave signals to the caller, and limit the address space if that is possible."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:  # Linux only
        limit = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _run_job(function: Callable[[Job], Entry], job: Job, limit_s: float) -> Entry:
    signal.setitimer(signal.ITIMER_REAL, limit_s + _ALARM_MARGIN_S)
    try:
        return function(job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _cause_of_death(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "the decoder's process was killed (SIGKILL), most likely for lack of memory"
    if exit_code < 0:
        return f"the decoder crashed ({signal.Signals(-exit_code).name})"
    return f"the decoder ended its process with code {exit_code}"
