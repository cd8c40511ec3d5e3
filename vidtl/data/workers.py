"""Batches from worker processes, of which a video may end any: its read is given up, and the rest goes on.

A read that exceeds a limit (`vidtl.video.limits`) or crashes its decoder ends its worker, which has noted it in shared
memory. The main process adds it to those given up, which workers report as unreadable without trying, and starts the
workers again from the batch that is due.
"""

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from vidtl.config import DataConfig
from vidtl.data.batch import Read
from vidtl.errors import UserError
from vidtl.runtime.resources import check_resources
from vidtl.runtime.signals import ignore_stop_signals
from vidtl.runtime.watchdog import heartbeat
from vidtl.video import UnreadableVideo
from vidtl.video.limits import cause_of_death, limited, signal_name

_PREFETCHED_BATCHES = 2  # per worker: enough to even out videos of different cost, at the price of memory
_POLL_S = 1  # between two looks at the workers; the DataLoader takes whole seconds
_IDLE_POLLS = 60  # in a row, of workers that read nothing and send nothing: a batch was lost on its way
_VAIN_STARTS = 2  # in a row, of workers that end or idle without any read at fault


class Reads:
    """Reads of a data set in workers: the present one of each worker, and those that were given up."""

    def __init__(self, data: DataConfig) -> None:
        self.limit_s = data.read_timeout_s
        self.num_workers = max(1, data.num_workers)
        self.given_up: dict[Read, str] = {}  # reason of each
        self._killed: set[Read] = set()
        rows = torch.zeros(self.num_workers, 1 + len(Read._fields), dtype=torch.int64)
        self.present: torch.Tensor = rows.share_memory_()  # type: ignore[no-untyped-call]
        """int64 [workers, 1 + 3]: 1 during a read, and its `Read`."""

    @contextmanager
    def limited(self, read: Read, path: Path) -> Iterator[None]:
        """Limit a read in a worker; UnreadableVideo if it was given up before."""
        if reason := self.given_up.get(read):
            raise UnreadableVideo(path, reason)
        worker = get_worker_info()
        if worker is None:
            yield
            return
        row = self.present.numpy()[worker.id]
        row[:] = 1, *read
        try:
            with limited(self.limit_s):
                yield
        finally:
            row[0] = 0

    def give_up(self, exit_codes: Sequence[int | None]) -> bool:
        """Give up the reads that ended a worker, by the exit codes of all workers; return False if there are none."""
        before = len(self.given_up)
        for exit_code, (is_reading, *place) in zip(exit_codes, self.present.tolist(), strict=True):
            read = Read(*place)
            # SIGBUS is for shared memory that is full, of batches on their way.
            if not is_reading or exit_code is None or signal_name(exit_code) == "SIGBUS":
                continue
            # Perhaps for the memory of others, or for the time that the job was suspended.
            if signal_name(exit_code) in ("SIGKILL", "SIGALRM") and read not in self._killed:
                self._killed.add(read)
                continue
            self.given_up[read] = cause_of_death(exit_code, self.limit_s)
        self.present.zero_()
        return len(self.given_up) > before


def read_batches(
    dataset: Dataset[Any],
    reads: Reads,
    keys_after: Callable[[int], Iterable[list[Any]]],
    collate: Callable[[Any], Any],
    batch_bytes: int,
) -> Generator[Any]:
    """Yield the batches, of about `batch_bytes`, of `keys_after(0)` in order; it gives the keys after so many batches.

    The data set reads files in `reads.limited`. UserError as its own, of `check_resources`, and for failing workers.
    """
    present = islice(keys_after(0), reads.num_workers * _PREFETCHED_BATCHES + 1)  # those that wait, and that in use
    check_resources(reads.num_workers, sum(1 for _ in present), batch_bytes)
    done = vain_starts = 0
    while True:
        batches = DataLoader(
            dataset,
            batch_sampler=keys_after(done),
            collate_fn=collate,
            num_workers=reads.num_workers,
            prefetch_factor=_PREFETCHED_BATCHES,
            timeout=_POLL_S,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),  # lets copies to the GPU overlap with computation
        )
        with _workers_ended(batches) as iterator:
            try:
                while True:
                    batch = _next(iterator, reads)
                    done, vain_starts = done + 1, 0
                    yield batch
            except StopIteration:
                return
            except _WorkerEndedError as ended:
                exit_codes = [worker.exitcode for worker in iterator._workers]
                _kill(iterator._workers)  # the others would finish batches that are read again
                vain_starts = 0 if reads.give_up(exit_codes) else vain_starts + 1
                if vain_starts > _VAIN_STARTS:
                    last = f"exit codes {exit_codes}, {' '.join(str(ended.__cause__).split())}"
                    raise UserError(f"decoding workers fail again and again outside of any video: {last}") from ended


class _WorkerEndedError(Exception):
    """A worker process is gone, or a batch."""


def _next(iterator: Any, reads: Reads) -> Any:
    """Wait for the next batch, or for the end of a worker; reduce a worker's UserError to its one line."""
    idle_polls = 0
    while True:
        try:
            return next(iterator)
        except UserError as error:
            # The DataLoader's copy of a worker's exception has the traceback as its text, and the message at the end.
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None
        except (RuntimeError, OSError, EOFError) as error:
            is_timeout = str(error).startswith("DataLoader timed out")
            # The connection of a worker may break shortly before its end shows.
            ended = wait([worker.sentinel for worker in iterator._workers], 0 if is_timeout else _POLL_S)
            if ended or idle_polls == _IDLE_POLLS:
                raise _WorkerEndedError from error
            if not is_timeout:
                raise
            idle_polls = 0 if reads.present[:, 0].any() else idle_polls + 1
            if not idle_polls:
                heartbeat()  # every read is limited: waiting for it is no hang


def _kill(workers: Iterable[Any]) -> None:
    for worker in workers:
        worker.kill()


def _start_worker(worker_index: int) -> None:
    ignore_stop_signals()
    for name in {"SIGPROF", "SIGALRM"} & vars(signal).keys():  # `limited` ends the process; not on Windows
        signal.signal(getattr(signal, name), signal.SIG_DFL)


@contextmanager
def _workers_ended(batches: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over `batches`; end its workers with the block, including hung ones. UserError if they do not start."""
    others = multiprocessing.active_children()
    try:
        iterator: Any = iter(batches)
    except (OSError, RuntimeError) as error:  # no more processes, memory or threads
        _kill(set(multiprocessing.active_children()).difference(others))  # Python would wait for them at its end
        allowed = "more processes (ulimit -u), more memory, or fewer data.num_workers"
        raise UserError(f"decoding workers could not be started: {error}; allowed: {allowed}") from error
    # Otherwise PyTorch raises the end of a worker anywhere in the main thread, even within a step.
    signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
    iterator._worker_pids_set = False

    def end() -> None:
        # PyTorch has no public way to end the workers before the iterator is garbage-collected.
        iterator._shutdown_workers()  # waits for them, but not forever
        _kill(iterator._workers)

    # After an error, this block may still be open when Python exits, which would wait for workers that ignore signals.
    atexit.register(end)
    try:
        yield iterator
    finally:
        end()
        atexit.unregister(end)
