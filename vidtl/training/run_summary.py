"""`summary.json`: description and results of a run, written at its start and completed at its end.

One entry of `attempts` stands for each start of the run; that of a killed attempt keeps the status `running` until the
next start. `peak_memory_bytes` is that of the main process: `gpu` allocated by torch (null without a GPU), `process`
resident memory with libraries (VmHWM; null where the system does not report it). Decoding workers are not included.
"""

import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError
from vidtl.runtime.exit import StoppedBySignalError
from vidtl.runtime.files import user_error_if_not_written, whole_file
from vidtl.runtime.launch import resolve_precision
from vidtl.runtime.versions import installed_versions
from vidtl.training.state import TrainingState

PACKAGES = ("vidtl", "torch", "torchvision", "accelerate", "numpy", "av", "decord", "torchcodec", "safetensors")
_log = logging.getLogger(__name__)
_REPOSITORY = Path(__file__).resolve().parents[2]
_STATUS = Path("/proc/self/status")


@contextmanager
def run_summary(file: Path, about: Mapping[str, Any], state: TrainingState) -> Iterator[dict[str, Any]]:
    """Add an attempt that starts at `state.step`; yield results to fill in, written with the outcome of the block.

    For the main process. `about` describes the run.

    Raises:
        UserError: the file cannot be written.
    """
    attempt: dict[str, Any] = {
        "status": "running",
        "started": _now(),
        "ended": None,
        "command": shlex.join(sys.argv),
        "process": os.getpid(),
        "host": socket.gethostname(),
        "first_step": state.step,
        "last_step": None,
        "peak_memory_bytes": None,
    }
    content = {"status": "running", **about, "attempts": [*_earlier_attempts(file), attempt]}
    _write(file, content)
    results: dict[str, Any] = {}
    status = "failed"
    try:
        yield results
        status = "finished"
    except StoppedBySignalError as error:
        status = str(error)
        raise
    except BaseException as error:
        status = f"failed: {error}" if isinstance(error, UserError) else f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        ended = {"ended": _now(), "last_step": state.step, "peak_memory_bytes": _peak_memory()}
        attempt |= {"status": status, **ended}
        content |= {"status": status, "results": _counts(state) | results}
        try:
            _write(file, content)
        except UserError as error:
            if status == "finished":
                raise
            _log.error("%s", error)  # such as a full disk that ended the run: its own error is reported


def _counts(state: TrainingState) -> dict[str, Any]:
    return {
        "steps": state.step,
        "best": asdict(state.best) if state.best else None,
        "nonfinite_steps": state.nonfinite_steps,
        "videos_asked": state.videos_asked,
        "videos_unreadable": state.videos_unreadable,
    }


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with user_error_if_not_written(file), whole_file(file) as stream:
        stream.write(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def _earlier_attempts(file: Path) -> list[dict[str, Any]]:
    try:
        attempts: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["attempts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [each | {"status": "killed"} if each["status"] == "running" else each for each in attempts]


def describe_run(config: ExperimentConfig, accelerator: Accelerator) -> dict[str, Any]:
    """Describe hardware, versions, state of the source code and the resolved configuration."""
    cuda = torch.cuda.is_available()
    return {
        "hardware": {
            "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
            "device_memory_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
            "cpu_cores": os.cpu_count(),
            "processes": accelerator.num_processes,
            "distribution": str(accelerator.distributed_type.value),
            "precision": resolve_precision(config.training.precision),
        },
        "versions": {"system": platform.platform(), "cuda": torch.version.cuda, **installed_versions(PACKAGES)},
        "git": git_state(_REPOSITORY),
        "config": asdict(config),
    }


def _peak_memory() -> dict[str, int | None]:
    """Return the maxima since the process started, in bytes."""
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"gpu": on_gpu, "process": peak_resident_bytes()}


def peak_resident_bytes() -> int | None:
    """Return the peak resident memory of this process (VmHWM); None on systems other than Linux.

    `getrusage` would include the memory of the parent process before exec.
    """
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(values[0]) * 1024 if values else None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and the files that differ from it; None outside of a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed_files": [line[3:] for line in changed.splitlines()]}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.rstrip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
