"""Work on strangers' files in child processes: a file that hangs or crashes its decoder costs that one file.

Children are started by a server process (forkserver), not forked: the caller has threads, such as that of a progress
bar. They end when the caller does, however that happens, since their pipe then ends; in the middle of a hanging call
an alarm ends them.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from vidtl.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

MEMORY_BYTES = 4 << 30
"""What a child may use beyond what it starts with; the largest pictures allowed need about 2 GiB."""

# How often the caller is asked whether to go on, and deadlines are checked.
_TICK_S = 0.2
# A child's own alarm comes after its caller's deadline: it is for children whose caller is gone.
_ALARM_MARGIN_S = 10.0


class Lost(NamedTuple):
    """A job whose child did not live to answer."""

    kind: Literal["crashed", "hung"]
    reason: str


@dataclass
class _Child:
    process: ForkServerProcess
    connection: Connection
    job: Any = None
    deadline_s: float = 0.0
    limit_s: float = 0.0


class Children(Generic[Job, Result]):
    """A few processes that each run `function` on one job at a time. Use as a context manager."""

    def __init__(self, function: Callable[[Job], Result], count: int, time_limit_s: Callable[[Job], float]) -> None:
        """`function` and jobs must be picklable; `time_limit_s` tells how long a job may take."""
        self._function = function
        self._time_limit_s = time_limit_s
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["__main__", function.__module__])  # the imports once, not in every child
        self._idle = [self._start() for _ in range(count)]
        self._busy: list[_Child] = []

    def run(self, jobs: Iterable[Job], should_stop: Callable[[], bool]) -> Iterator[tuple[Job, Result | Lost]]:
        """Jobs with their results, in the order in which they end; once `should_stop`, no more than what is there.

        Raises:
            UserError: `function` raised it: what is wrong is not the file.
            RuntimeError: `function` raised anything else, which it must not do whatever the file is.
        """
        remaining = iter(jobs)
        more = True
        while not should_stop():
            while self._idle and more:
                job = next(remaining, None)
                if job is None:
                    more = False
                else:
                    self._give(self._idle.pop(), job)
            if not self._busy:
                return
            yield from self._collect()

    def _give(self, child: _Child, job: Job) -> None:
        child.job, child.limit_s = job, self._time_limit_s(job)
        child.deadline_s = time.monotonic() + child.limit_s
        self._busy.append(child)
        with contextlib.suppress(OSError):  # it died while idle: `_collect` finds out
            child.connection.send((job, child.limit_s))

    def _collect(self) -> Iterator[tuple[Any, Any]]:
        ready = wait([child.connection for child in self._busy], _TICK_S)
        for child in [child for child in self._busy if child.connection in ready]:
            self._busy.remove(child)
            try:
                result, error = child.connection.recv()
            except (EOFError, OSError):
                yield child.job, Lost("crashed", self._cause_of_death(child))
                self._idle.append(self._start())
                continue
            if isinstance(error, UserError):
                raise error
            if error:
                raise RuntimeError(f"in a child process, on {child.job}:\n{error}")
            self._idle.append(child)
            yield child.job, result
        now_s = time.monotonic()
        for child in [child for child in self._busy if child.deadline_s < now_s]:
            self._busy.remove(child)
            child.process.kill()
            yield child.job, Lost("hung", f"no result within {child.limit_s:.0f} s")
            self._idle.append(self._start())

    @staticmethod
    def _cause_of_death(child: _Child) -> str:
        child.process.join()
        code = child.process.exitcode or 0
        if code >= 0:
            return f"the decoder ended its process with code {code}"
        if code == -signal.SIGKILL:
            return "the decoder's process was killed (SIGKILL), most likely for lack of memory"
        return f"the decoder crashed ({signal.Signals(-code).name})"

    def _start(self) -> _Child:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        return _Child(process, ours)

    def __enter__(self) -> "Children[Job, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        for child in (*self._idle, *self._busy):
            child.process.kill()
            child.connection.close()
        for child in (*self._idle, *self._busy):
            child.process.join()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """A child's life."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the caller decides what they mean
        signal.signal(number, signal.SIG_IGN)
    _limit_memory()
    while True:
        try:
            job, limit_s = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit_s + _ALARM_MARGIN_S)
        answer: tuple[Any, UserError | str | None]
        try:
            answer = (function(job), None)
        except UserError as error:
            answer = (None, error)
        except Exception:
            answer = (None, traceback.format_exc())
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


def _limit_memory() -> None:
    """Bound the address space, where that is possible: Linux tells its present size."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            present = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = present + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
