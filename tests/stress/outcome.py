"""What an experiment found, and the small things that several of them need."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER, checkpoint_step, list_checkpoints, newest_valid


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
    """Where an experiment works, and how much it does."""

    folder: Path
    seed: int
    scale: float
    accelerator: Accelerator

    def scaled(self, number: int) -> int:
        """So many cases at full scale; at least one."""
        return max(1, round(number * self.scale))


def in_child(action: Callable[[], object]) -> int:
    """Run `action` in a forked child; its process number. Its messages are not shown."""
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
        finally:
            os._exit(code)
    return child


def ending_of(child: int) -> int:
    """Exit code of a child; minus the signal's number where one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tensors_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights, average and optimizer."""
    files = [name for name in (MODEL, OPTIMIZER, f"{EMA}/{MODEL}") if (checkpoint / name).exists()]
    return {f"{file}:{name}": value for file in files for name, value in load_file(checkpoint / file).items()}


def are_equal(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same, bit by bit."""
    a, b = tensors_of(one), tensors_of(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def cut_back(source: Path, target: Path, step: int) -> Path:
    """A copy of a run as it was when it had been killed some time after its checkpoint of `step`."""
    shutil.copytree(source, target)
    for directory in list_checkpoints(target / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    return target


def newest(run: Path) -> Path:
    """Its last whole checkpoint."""
    checkpoint = newest_valid(run / "checkpoints")
    assert checkpoint is not None, run
    return checkpoint


class KillInSave:
    """Kills this process at the n-th file operation of checkpoints from now on."""

    def __init__(self, operation: int) -> None:
        self.left = operation
        real_fsync = os.fsync
        events = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}

        def fsync(descriptor: int) -> None:
            self.count()
            real_fsync(descriptor)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(lambda event, arguments: self.count() if event in events else None)

    def count(self) -> None:
        self.left -= 1
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
