"""`summary.json`: what a run was and what it came to, written at its start and completed at its end.

One entry of `attempts` stands for each start of the run; one that was killed keeps the status `running` until the next
start finds it so. `peak_memory_bytes` of an entry are those of the first process while it lasted: `gpu` what torch had
allocated there (null without a GPU), `process` what the process held in the machine's memory, libraries included
(VmHWM; null where the system does not tell). Decoding workers are processes of their own and not counted.
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
from vidtl.runtime.resident_memory import peak_resident_bytes
from vidtl.runtime.versions import installed_versions
from vidtl.runtime.zero import distribution
from vidtl.training.state import TrainingState

PACKAGES = ("vidtl", "torch", "torchvision", "accelerate", "numpy", "av", "decord", "torchcodec", "safetensors")
_log = logging.getLogger(__name__)
_REPOSITORY = Path(__file__).resolve().parents[2]


class RunSummary:
    """The file of one run; only the first process has one."""

    def __init__(self, file: Path, about: Mapping[str, Any], state: TrainingState) -> None:
        """Add an attempt that begins at `state.step`; `about` is what does not change while it lasts.

        Raises:
            UserError: it cannot be written.
        """
        self.file = file
        self.state = state
        before = _read(file)
        attempts = before.get("attempts", [])
        for attempt in attempts:
            if attempt["status"] == "running":
                attempt["status"] = "killed"
        self._attempt: dict[str, Any] = {
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
        self._content: dict[str, Any] = {"status": "running", **about, "attempts": [*attempts, self._attempt]}
        with user_error_if_not_written(file):
            self._write()

    @contextmanager
    def completed(self) -> Iterator[dict[str, Any]]:
        """Yield results to fill in; when the block ends, however it ends, they are written with how it ended."""
        results: dict[str, Any] = {}
        status = "failed"
        try:
            yield results
            status = "finished"
        except (UserError, StoppedBySignalError) as error:
            status = f"failed: {error}" if isinstance(error, UserError) else str(error)
            raise
        except BaseException as error:
            status = f"failed: {type(error).__name__}: {error}"
            raise
        finally:
            self._attempt |= {
                "status": status,
                "ended": _now(),
                "last_step": self.state.step,
                "peak_memory_bytes": _peak_memory(),
            }
            self._content["status"] = status
            self._content["results"] = {
                "steps": self.state.step,
                "best": asdict(self.state.best) if self.state.best else None,
                "nonfinite_steps": self.state.nonfinite_steps,
                "videos_asked": self.state.videos_asked,
                "videos_unreadable": self.state.videos_unreadable,
                **results,
            }
            try:
                with user_error_if_not_written(self.file):
                    self._write()
            except UserError as error:
                if status == "finished":
                    raise
                # As of a full disk, which the run may have ended of: that is what to tell.
                _log.error("%s", error)

    def _write(self) -> None:
        with whole_file(self.file) as stream:
            stream.write(json.dumps(self._content, indent=1, ensure_ascii=False, default=str) + "\n")


def describe_run(config: ExperimentConfig, accelerator: Accelerator) -> dict[str, Any]:
    """Hardware, versions, state of the source code and the resolved configuration."""
    cuda = torch.cuda.is_available()
    return {
        "hardware": {
            "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
            "device_memory_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
            "cpu_cores": os.cpu_count(),
            "processes": accelerator.num_processes,
            "distribution": distribution(accelerator),
            "precision": accelerator.mixed_precision,
        },
        "versions": {
            "system": platform.platform(),
            "cuda": torch.version.cuda,
            **installed_versions(PACKAGES),
        },
        "git": git_state(_REPOSITORY),
        "config": asdict(config),
    }


def _peak_memory() -> dict[str, int | None]:
    """Largest amounts since the process started, in bytes."""
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"gpu": on_gpu, "process": peak_resident_bytes()}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, and the files that differ from it; `None` where the code does not lie in a repository."""
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


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
