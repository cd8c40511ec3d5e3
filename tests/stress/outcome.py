"""Results of an experiment, and child processes."""

import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from vidtl.runtime.signals import run_tool
from vidtl.training.checkpoint_directory import newest_valid

LIMIT_BYTES, ADDRESS_SPACE = 2 << 30, 6 << 30

FILE_EVENTS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
"""Audit events of operations on files that checkpoints make."""


@dataclass
class Outcome:
    """Cases tried, and those that went wrong, by name."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def judge(self, name: str, is_right: bool) -> None:
        self.cases += 1
        if not is_right:
            self.failures.append(name)


@dataclass(frozen=True)
class Bench:
    """Folder and size of an experiment."""

    folder: Path
    seed: int
    scale: float
    accelerator: Accelerator

    def scaled(self, number: int) -> int:
        """Scale a number of cases, to at least one."""
        return max(1, round(number * self.scale))


def in_child(action: Callable[[], object]) -> int:
    """Run `action` silently in a forked child; return its process number."""
    child = os.fork()
    if child == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        code = 1
        try:
            action()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def in_fork(action: Callable[[], object], log: Path, limit_s: float) -> tuple[int, str, int]:
    """Run an action as a tool does in a forked process; return exit code, fault or '', and peak memory in bytes."""

    def work() -> None:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE,) * 2)
        run_tool(action)

    child = in_child(work)
    with open(os.pidfd_open(child)) as end:
        ended = select.select([end], [], [], limit_s)[0]
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    code, text, peak = os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), usage.ru_maxrss * 1024
    fault = "" if code in (0, 2, 4) else f"exit code {code}"
    fault = f"no end in {limit_s} s" if not ended else f"{peak >> 20} MB" if peak > LIMIT_BYTES else fault
    if "Traceback (" in text or "\x1b" in text:
        fault = f"traceback or escape: {text.strip().splitlines()[-1][:200]}"
    return code, fault, peak


def ending_of(child: int) -> int:
    """Return the exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def newest(run: Path) -> Path:
    """Return the last valid checkpoint of a run."""
    checkpoint = newest_valid(run / "checkpoints")
    assert checkpoint is not None, run
    return checkpoint


class KillInSave:
    """Kill of this process at the n-th file operation of checkpoints from now on."""

    def __init__(self, operation: int, events: Collection[str] = FILE_EVENTS) -> None:
        self.left = operation
        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            self.count()
            real_fsync(descriptor)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(lambda event, arguments: self.count() if event in events else None)

    def count(self) -> None:
        self.left -= 1
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
