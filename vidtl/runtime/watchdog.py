"""Watchdog that ends a multi-process run when one process dies silently or hangs, and names that process.

A thread of each process publishes its activity once a second, as a heartbeat, through the launcher's store. When no
process makes progress, the others wait for the one furthest behind.
"""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from accelerate import Accelerator


class Activity(IntEnum):
    """Activities of a process after a given number of finished steps; a greater one is further ahead.

    A checkpoint and an evaluation come before the next step; the other processes wait for the main process there.
    """

    STARTING = 0, "starting"
    SAVING = 1, "writing a checkpoint"
    EVALUATING = 2, "evaluating"
    WAITING = 3, "waiting for the main process"
    READING = 4, "waiting for clips"
    COMPUTING = 5, "computing or exchanging gradients"
    REDUCING = 6, "exchanging loss and counts"

    text: str

    def __new__(cls, value: int, text: str = "") -> "Activity":
        self = int.__new__(cls, value)
        self._value_, self.text = value, text
        return self


class _Position(NamedTuple):
    step: int
    activity: int
    moves: int


_position = _Position(0, Activity.STARTING, 0)


def heartbeat(activity: Activity | None = None, step: int | None = None) -> None:
    """Record progress, and the activity and number of finished steps where they change."""
    global _position
    before = _position
    now = before.activity if activity is None else activity
    _position = _Position(before.step if step is None else step, now, before.moves + 1)


@contextmanager
def activity(now: Activity | None, step: int | None = None) -> Iterator[None]:
    """Record an activity for the duration of the block; None changes nothing."""
    before = _position
    heartbeat(now, step)
    yield
    heartbeat(Activity(before.activity), before.step)


@dataclass(frozen=True)
class Heartbeat:
    """State that one process last published."""

    rank: int
    host: str
    pid: int
    beat: int
    """Increases every second while the process runs."""
    step: int
    activity: int
    moves: int
    """Increases whenever the process makes progress."""

    def __str__(self) -> str:
        name = f"process {self.rank} (pid {self.pid} on {self.host})"
        return f"{name}, after step {self.step}, {Activity(self.activity).text}"


class HangDetector:
    """Detection of a hang, and of the process that causes it, from the heartbeats of all processes."""

    def __init__(self, timeout_s: float, now_s: float) -> None:
        self.timeout_s = timeout_s
        self._moved_s = now_s
        self._beats: dict[int, tuple[int, float]] = {}
        self._moves: dict[int, int] = {}

    def check(self, heartbeats: list[Heartbeat], now_s: float) -> str | None:
        """Return one line that names the first cause of a hang, or None."""
        for each in heartbeats:
            beat, _ = self._beats.get(each.rank, (-1, 0.0))
            if each.beat != beat:
                self._beats[each.rank] = (each.beat, now_s)
            if each.moves != self._moves.get(each.rank):
                self._moves[each.rank], self._moved_s = each.moves, now_s
        silent = [each for each in heartbeats if now_s - self._beats[each.rank][1] > self.timeout_s]
        if silent:
            return f"no heartbeat for {self.timeout_s:g} s from {_joined(silent)} at the last one"
        if now_s - self._moved_s <= self.timeout_s:
            return None
        furthest_behind = min((each.step, each.activity) for each in heartbeats)
        behind = [each for each in heartbeats if (each.step, each.activity) == furthest_behind]
        if len(behind) == len(heartbeats):
            return f"no progress for {self.timeout_s:g} s in any process: {_joined(heartbeats)}"
        return f"no progress for {self.timeout_s:g} s; the others wait for {_joined(behind)}"


def _joined(heartbeats: list[Heartbeat]) -> str:
    return "; ".join(map(str, heartbeats))


@contextmanager
def watchdog(
    accelerator: "Accelerator", timeout_s: float, stacks: Path, is_stopping: Callable[[], bool]
) -> Iterator[None]:
    """End this process inside the block when the run hangs for `timeout_s` seconds, or its launcher is gone.

    Prints the first cause and writes the stack of every thread to a file per process in `stacks`. Does nothing for a
    single process, or where `timeout_s` is 0. Once `is_stopping` returns True, a signal may have ended the launcher.
    """
    if accelerator.num_processes == 1 or timeout_s == 0:
        yield
        return
    thread = _Thread(accelerator, timeout_s, stacks, is_stopping)
    thread.start()
    try:
        yield
    finally:
        thread.stop()


class _Thread(threading.Thread):
    def __init__(
        self, accelerator: "Accelerator", timeout_s: float, stacks: Path, is_stopping: Callable[[], bool]
    ) -> None:
        from torch.distributed.distributed_c10d import _get_default_store

        super().__init__(name="watchdog", daemon=True)
        rank, num_processes = accelerator.process_index, accelerator.num_processes
        self.rank, self.timeout_s, self.stacks, self.is_stopping = rank, timeout_s, stacks, is_stopping
        # A separate connection: requests of the main thread never block it.
        self.store = _get_default_store().clone()
        self.store.set_timeout(timedelta(seconds=timeout_s))
        # Attempts of a restarted job share the launcher's store.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.keys = [f"vidtl/watchdog/{attempt}/{number}" for number in range(num_processes)]
        self.ended = threading.Event()
        heartbeat(Activity.STARTING)
        self._publish(0)

    def stop(self) -> None:
        """Leave in order, so that the other processes see no hang."""
        self.ended.set()
        self.join()
        with suppress(Exception):  # the launcher may have gone already
            self.store.set(self.keys[self.rank], "null")

    def run(self) -> None:
        detector = HangDetector(self.timeout_s, time.monotonic())
        beat = 0
        while not self.ended.wait(min(1.0, self.timeout_s / 5)):
            beat += 1
            try:
                heartbeats = self._exchange(beat)
            except Exception as error:
                if not self.ended.is_set() and not self.is_stopping():
                    self._end(f"the launcher's store cannot be reached: {error}")
                return
            problem = detector.check(heartbeats, time.monotonic()) if heartbeats else None
            if problem and not self.ended.is_set():
                self._end(problem)

    def _publish(self, beat: int) -> None:
        own = Heartbeat(self.rank, socket.gethostname(), os.getpid(), beat, *_position)
        self.store.set(self.keys[self.rank], json.dumps(asdict(own)))

    def _exchange(self, beat: int) -> list[Heartbeat]:
        self._publish(beat)
        started = [key for key in self.keys if self.store.check([key])]
        texts: list[Any] = [json.loads(text) for text in self.store.multi_get(started)]
        if not all(texts):  # a process has left in order; the others follow, or fail with their own error
            return []
        heartbeats = [Heartbeat(**text) for text in texts]
        missing = [rank for rank, key in enumerate(self.keys) if key not in started]
        return heartbeats + [Heartbeat(rank, "an unknown host", 0, 0, 0, Activity.STARTING, 0) for rank in missing]

    def _end(self, problem: str) -> None:
        with suppress(OSError):  # a full disk must not keep a hung run alive
            self.stacks.mkdir(parents=True, exist_ok=True)
            with (self.stacks / f"process-{self.rank}.txt").open("w", encoding="utf-8") as stream:
                faulthandler.dump_traceback(stream, all_threads=True)
        is_first = True  # without the store, twice is better than never
        with suppress(RuntimeError):
            is_first = int(self.store.add(f"{self.keys[0]}/reported", 1)) == 1
        if is_first:
            message = " ".join(f"error: {problem}; stacks: {self.stacks}/process-*.txt".splitlines())
            print(message, file=sys.stderr, flush=True)
        time.sleep(2.0)  # lets the other processes write their stacks before the launcher ends them
        os._exit(1)
