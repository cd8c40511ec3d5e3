"""Output directory of a run: one experiment, one run at a time, and no changes before all checks have passed.

In `summary.json`, one entry of `attempts` stands for each start of the run; that of a killed attempt keeps the status
`running` until the next start. `peak_memory_bytes` is that of the main process without decoding workers: `gpu`
allocated by torch (null without a GPU), `process` resident memory (VmHWM; null outside Linux).
"""

import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from vidtl.config import ExperimentConfig
from vidtl.config.checks import require
from vidtl.config.compare import differences, plain
from vidtl.config.documents import YAML_BYTES, parse_yaml, read_json, read_text
from vidtl.config.load import dotted
from vidtl.config.training import parse_length
from vidtl.data.gaps import Gap
from vidtl.errors import UserError
from vidtl.runtime.files import inside, lock, user_error_if_not_written, whole_file
from vidtl.runtime.launch import resolve_precision
from vidtl.runtime.logging import installed_versions, read_json_lines
from vidtl.runtime.signals import StoppedBySignalError
from vidtl.training import checkpoint_directory as checkpoints
from vidtl.training.state import TrainingState

PACKAGES = ("vidtl", "torch", "torchvision", "accelerate", "numpy", "av", "decord", "torchcodec", "safetensors")
_log = logging.getLogger(__name__)
_REPOSITORY = Path(__file__).resolve().parents[2]


class RunDirectory:
    """Paths of a run, and the checks before it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / checkpoints.METRICS_FILE
        self.unreadable_file = path / "unreadable.jsonl"
        self.left_out_file = path / "left_out.jsonl"
        self.summary_file = path / "summary.json"
        self.stacks = path / "stacks"
        self.checkpoints = path / checkpoints.CHECKPOINTS

    def find_checkpoint(self, config: ExperimentConfig) -> Path | None:
        """Find the checkpoint to resume from, if any; UserError: another experiment, all damaged, resume `never`."""
        existing = checkpoints.list_checkpoints(self.checkpoints)
        allowed = f"'auto' to resume from {self.checkpoints}, or another output directory"
        require(not existing or config.training.resume == "auto", "training.resume", "never", allowed)
        checkpoint = checkpoints.newest_valid(self.checkpoints)
        if existing and checkpoint is None:
            newest, advice = existing[0], "move them away, or give another output directory"
            problem = checkpoints.find_problem(newest, newest.name)
            raise UserError(f"no checkpoint in {self.checkpoints} is valid; {newest.name}: {problem}; {advice}")
        for file in (self.config_file, *([checkpoint / checkpoints.EXPERIMENT] if checkpoint else [])):
            check_same_experiment(file, config)
        return checkpoint

    def left_out(self, find: Callable[[], list[Gap]]) -> list[Gap]:
        """Return the videos that the run has left out since its start, whatever a manifest has now; else `find()`."""
        if not checkpoints.list_checkpoints(self.checkpoints):
            return find()
        return [Gap(line["id"], line["path"], line["reason"]) for line in read_json_lines(self.left_out_file)]

    def take(self, config: ExperimentConfig, checkpoint: Path | None, left_out: Sequence[Gap] = ()) -> None:
        """Record the configuration and clean up after a killed run, once all checks have passed.

        `checkpoint` is the one to resume from; a new run lists `left_out`. UserError where nothing can be written.
        """
        if checkpoint is None and (left_out or self.left_out_file.exists()):
            with whole_file(self.left_out_file) as stream:
                stream.writelines(json.dumps({"step": 0, **gap._asdict()}) + "\n" for gap in left_out)
        checkpoints.remove_unusable(self.checkpoints, checkpoint)
        with whole_file(self.config_file) as stream:
            stream.write(dump_config(config))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory until the block, or process, ends; UserError where it is in use or cannot be written."""
        with user_error_if_not_written(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            appended = (self.metrics_file, self.unreadable_file, self.stacks, self.checkpoints, self.path / "wandb")
            for path in (*appended, lock_file := self.path / ".lock"):
                inside(path, self.path)
            stream = lock_file.open("ab+", buffering=0)
        with stream:
            try:
                lock(stream)
            except BlockingIOError:
                stream.seek(0)
                owner = stream.read(200).decode(errors="replace").strip() or "an unnamed process"
                raise UserError(f"output directory {self.path} is in use by {owner}") from None
            with user_error_if_not_written(lock_file):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            yield
            stream.truncate(0)


def dump_config(config: ExperimentConfig) -> str:
    """Dump the resolved configuration as YAML that `--config` accepts."""
    return yaml.safe_dump(plain(asdict(config)), sort_keys=False)


def check_same_experiment(file: Path, config: ExperimentConfig) -> None:
    """Compare the settings that affect training with `file`, if any; UserError if they differ but for a longer run."""
    if not file.exists():
        return
    recorded = None
    with suppress(ValueError):
        recorded = parse_yaml(read_text(file, YAML_BYTES))
    if not isinstance(recorded, dict):
        raise UserError(f"{file} is not a configuration of a run; give another output directory")
    for key, old, new in differences(dotted(recorded), config, affecting=["training"]):
        if key == "schedule.length":
            before, now = (parse_length(str(length), key) for length in (old, new))
            if now.unit == before.unit and now.number >= before.number:
                continue
        version = ", because another version of vidtl wrote it" if "(absent)" in (old, new) else ""
        advice = "give another output directory, or the same value"
        raise UserError(f"{file} holds another experiment: {key} is {old!r} there and {new!r} here{version}; {advice}")


@contextmanager
def run_summary(file: Path, about: Mapping[str, Any], state: TrainingState) -> Iterator[dict[str, Any]]:
    """Add an attempt that starts at `state.step` to `summary.json`, and complete it with the outcome of the block.

    `about` describes the run. Yields a dictionary for further results. UserError where the file cannot be written.
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
    try:
        yield results
        status = "finished"
    except BaseException as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        status = str(error) if isinstance(error, StoppedBySignalError) else f"failed: {reason}"
        raise
    finally:
        attempt |= {"status": status, "ended": _now(), "last_step": state.step, "peak_memory_bytes": _peak_memory()}
        counts = {"steps": state.step, "best": asdict(state.best) if state.best else None}
        counts |= {name: getattr(state, name) for name in ("nonfinite_steps", "videos_asked", "videos_unreadable")}
        content |= {"status": status, "results": counts | results}
        try:
            _write(file, content)
        except UserError as error:  # such as a full disk: a run that has ended stays finished
            _log.warning("%s", error)


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with whole_file(file) as stream:
        stream.write(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


def _earlier_attempts(file: Path) -> list[dict[str, Any]]:
    try:
        attempts: list[dict[str, Any]] = read_json(file)["attempts"]
        return [each | {"status": "killed"} if each["status"] == "running" else each for each in attempts]
    except (OSError, ValueError, KeyError, TypeError):
        return []


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
    """Return the maxima since the process started, in bytes. `getrusage` would include the parent's before exec."""
    process = None
    with suppress(OSError, IndexError):
        process = int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024
    return {"gpu": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None, "process": process}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit and the files that differ from it; None outside of a repository."""
    options: Any = {"capture_output": True, "text": True, "check": True, "timeout": 10}
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        found = [subprocess.run(["git", "-C", folder, *command], **options) for command in commands]
    except (OSError, subprocess.SubprocessError):
        return None
    commit, changed = (each.stdout.rstrip() for each in found)
    return {"commit": commit, "changed_files": [line[3:] for line in changed.splitlines()]}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
