"""Results of an experiment, and child processes."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from vidtl.training.checkpoint_directory import newest_valid

FILE_EVENTS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
"""Audit events of operations on files that checkpoints make."""


@dataclass
class Outcome:
    """Cases tried, and those that went wrong, by name."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def judge(self, name: str, is_right: bool) -> None:
        """Count one case."""
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
