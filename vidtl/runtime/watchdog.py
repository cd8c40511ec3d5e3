"""Ends a run of several processes when one of them dies silently or hangs, and names it.

Where one process stops, the others wait for it in the next exchange, and none can tell from that whom it waits for.
So each process says what it is doing (`doing`), and a thread of each passes that on every second through the store
over which the processes met. When nothing moves any more, the process that is furthest behind is the one that the
others wait for.
"""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed
from accelerate import Accelerator

from vidtl.runtime.progress import NO_FIGURES, Progress, Task

HANG_EXIT_CODE = 1


class Activity(IntEnum):
    """What a process does after so many finished steps, in this order; a greater one is further ahead.

    A checkpoint and an evaluation come before the next step is begun; the others wait for the first process there.
    """

    STARTING = 0
    SAVING = 1
    EVALUATING = 2
    WAITING = 3
    READING = 4
    COMPUTING = 5
    COMPARING = 6

    @property
    def text(self) -> str:
        """For messages."""
        return {
            Activity.STARTING: "starting",
            Activity.READING: "waiting for clips",
            Activity.COMPUTING: "computing or exchanging gradients",
            Activity.COMPARING: "comparing notes with the others",
            Activity.SAVING: "writing a checkpoint",
            Activity.EVALUATING: "evaluating",
            Activity.WAITING: "waiting for the first process",
        }[self]


class _Position(NamedTuple):
    step: int
    activity: int
    moves: int


_position = _Position(0, Activity.STARTING, 0)


def doing(activity: Activity, step: int | None = None) -> None:
    """Note what this process begins now; `step` counts finished optimizer steps, None for the same as before.

    To say the same again is a sign of progress too.
    """
    global _position
    _position = _Position(_position.step if step is None else step, activity, _position.moves + 1)


@dataclass(frozen=True)
class SignOfLife:
    """What one process last said of itself."""

    rank: int
    host: str
    pid: int
    beat: int
    """Rises every second while the process runs at all."""
    step: int
    activity: int
    moves: int
    """Rises whenever the process gets on with its work."""

    def __str__(self) -> str:
        name = f"process {self.rank} (pid {self.pid} on {self.host})"
        return f"{name}, after step {self.step}, {Activity(self.activity).text}"


class Judge:
    """Decides from the signs of life of all processes whether the run hangs, and because of whom."""

    def __init__(self, timeout_s: float, now_s: float) -> None:
        self.timeout_s = timeout_s
        self._moved_s = now_s
        self._beats: dict[int, tuple[int, float]] = {}
        self._moves: dict[int, int] = {}

    def verdict(self, signs: list[SignOfLife], now_s: float) -> str | None:
        """One line that names the first cause, or None while all is well."""
        for sign in signs:
            beat, _ = self._beats.get(sign.rank, (-1, 0.0))
            if sign.beat != beat:
                self._beats[sign.rank] = (sign.beat, now_s)
            if sign.moves != self._moves.get(sign.rank):
                self._moves[sign.rank], self._moved_s = sign.moves, now_s
        silent = [sign for sign in signs if now_s - self._beats[sign.rank][1] > self.timeout_s]
        if silent:
            return f"no sign of life for {self.timeout_s:g} s from {_joined(silent)} when last heard of"
        if now_s - self._moved_s <= self.timeout_s:
            return None
        behind = min((sign.step, sign.activity) for sign in signs)
        culprits = [sign for sign in signs if (sign.step, sign.activity) == behind]
        if len(culprits) == len(signs):
            return f"no progress for {self.timeout_s:g} s in any process: {_joined(signs)}"
        return f"no progress for {self.timeout_s:g} s; the others wait for {_joined(culprits)}"


def _joined(signs: list[SignOfLife]) -> str:
    return "; ".join(map(str, signs))


@contextmanager
def watchdog(
    accelerator: Accelerator, timeout_s: float, stacks: Path, is_stopping: Callable[[], bool]
) -> Iterator[None]:
    """While the block lasts, end this process when the run hangs for `timeout_s` seconds, or its launcher is gone.

    The first cause goes to stderr, in one line; what every thread was at goes to a file per process in the folder
    `stacks`. One process alone is not watched, nor is anything where `timeout_s` is 0. Once this process `is_stopping`,
    the launcher may go: it dies of some signals that mean a checkpoint to the run.
    """
    if accelerator.num_processes == 1 or timeout_s == 0:
        yield
        return
    thread = _Thread(accelerator.process_index, accelerator.num_processes, timeout_s, stacks, is_stopping)
    thread.start()
    try:
        yield
    finally:
        thread.stop()


class _Thread(threading.Thread):
    def __init__(
        self, rank: int, num_processes: int, timeout_s: float, stacks: Path, is_stopping: Callable[[], bool]
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.rank, self.timeout_s, self.stacks, self.is_stopping = rank, timeout_s, stacks, is_stopping
        # A connection of its own, so that it is never kept waiting by what the main thread asks of the store.
        self.store = torch.distributed.distributed_c10d._get_default_store().clone()
        self.store.set_timeout(timedelta(seconds=timeout_s))
        # Attempts of a restarted job share the launcher's store.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.keys = [f"vidtl/watchdog/{attempt}/{number}" for number in range(num_processes)]
        self.ended = threading.Event()
        doing(Activity.STARTING)
        self._tell(0)

    def stop(self) -> None:
        """Called by the process itself at its end; the others must not take its silence for a hang."""
        self.ended.set()
        self.join()
        with suppress(Exception):  # the launcher may have gone already
            self.store.set(self.keys[self.rank], "null")

    def run(self) -> None:
        judge = Judge(self.timeout_s, time.monotonic())
        beat = 0
        while not self.ended.wait(min(1.0, self.timeout_s / 5)):
            beat += 1
            try:
                signs = self._exchange(beat)
            except Exception as error:
                if not self.ended.is_set() and not self.is_stopping():
                    self._end(f"the launcher's store cannot be reached: {error}")
                return
            problem = judge.verdict(signs, time.monotonic()) if signs else None
            if problem and not self.ended.is_set():
                self._end(problem)

    def _tell(self, beat: int) -> None:
        own = SignOfLife(self.rank, socket.gethostname(), os.getpid(), beat, *_position)
        self.store.set(self.keys[self.rank], json.dumps(asdict(own)))

    def _exchange(self, beat: int) -> list[SignOfLife]:
        self._tell(beat)
        begun = [key for key in self.keys if self.store.check([key])]
        texts: list[Any] = [json.loads(text) for text in self.store.multi_get(begun)]
        if not all(texts):  # one has come to its end; the others are about to, or learn from it why not
            return []
        signs = [SignOfLife(**text) for text in texts]
        missing = [rank for rank, key in enumerate(self.keys) if key not in begun]
        return signs + [SignOfLife(rank, "an unknown host", 0, 0, 0, Activity.STARTING, 0) for rank in missing]

    def _end(self, problem: str) -> None:
        with suppress(OSError):  # a full disk must not keep a hung run alive
            self.stacks.mkdir(parents=True, exist_ok=True)
            with (self.stacks / f"process-{self.rank}.txt").open("w", encoding="utf-8") as stream:
                faulthandler.dump_traceback(stream, all_threads=True)
        if self._is_first_to_tell():
            message = " ".join(f"error: {problem}; where each process stood: {self.stacks}/process-*.txt".splitlines())
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
        # Time for the others to write down where they stand; the launcher ends them as soon as one has gone.
        time.sleep(2.0)
        os._exit(HANG_EXIT_CODE)

    def _is_first_to_tell(self) -> bool:
        try:
            return int(self.store.add(f"{self.keys[0]}/told", 1)) == 1
        except RuntimeError:  # without the store, twice is better than never
            return True


class WatchedProgress:
    """A progress whose updates are noted as signs of progress too."""

    def __init__(self, progress: Progress, activity: Activity) -> None:
        self.progress = progress
        self.activity = activity

    @contextmanager
    def task(self, title: str, unit: str, total: int, done: int = 0) -> Iterator[Task]:
        with self.progress.task(title, unit, total, done) as task:
            yield _WatchedTask(task, self.activity)


@dataclass(frozen=True)
class _WatchedTask:
    task: Task
    activity: Activity

    def update(self, done: int, figures: Mapping[str, str] = NO_FIGURES) -> None:
        doing(self.activity)
        self.task.update(done, figures)
