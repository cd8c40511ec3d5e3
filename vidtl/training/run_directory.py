"""Output directory of a run: one experiment, one run at a time, and no changes before all checks have passed."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import yaml

from vidtl.config import ExperimentConfig
from vidtl.config.compare import differences, plain
from vidtl.config.load import dotted
from vidtl.errors import UserError
from vidtl.runtime.files import user_error_if_not_written, whole_file
from vidtl.training.checkpoint import (
    CHECKPOINTS,
    EXPERIMENT,
    find_problem,
    list_checkpoints,
    newest_valid,
    remove_leftovers,
    set_aside_newer,
)


class RunDirectory:
    """Paths of a run, and the checks before it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.unreadable_file = path / "unreadable.jsonl"
        self.summary_file = path / "summary.json"
        self.stacks = path / "stacks"
        self.checkpoints = path / CHECKPOINTS

    def find_checkpoint(self, config: ExperimentConfig) -> Path | None:
        """Find the checkpoint to resume from, None in a new directory; writes nothing.

        Raises:
            UserError: the directory holds another experiment, or only checkpoints that do not verify, or any checkpoint
                while `training.resume` is `never`.
        """
        existing = list_checkpoints(self.checkpoints)
        if existing and config.training.resume == "never":
            raise UserError(
                f"training.resume is 'never' and {self.checkpoints} has checkpoints; "
                "allowed: 'auto' to resume from the newest, or another output directory"
            )
        checkpoint = newest_valid(self.checkpoints)
        if existing and checkpoint is None:
            raise UserError(
                f"no checkpoint in {self.checkpoints} can be resumed from; {existing[0].name}: "
                f"{find_problem(existing[0], existing[0].name)}; move them away, or give another output directory"
            )
        for file in (self.config_file, *([checkpoint / EXPERIMENT] if checkpoint else [])):
            check_same_experiment(file, config)
        return checkpoint

    def take(self, config: ExperimentConfig, checkpoint: Path | None) -> None:
        """Record the configuration, remove unfinished files of a killed run, and set aside damaged checkpoints newer
        than `checkpoint`, the one to resume from. Call it when all checks have passed.

        Raises:
            UserError: the directory cannot be written.
        """
        with user_error_if_not_written(self.config_file):
            remove_leftovers(self.checkpoints)
            set_aside_newer(self.checkpoints, checkpoint)
            with whole_file(self.config_file) as stream:
                stream.write(dump_config(config))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory for the duration of the block; the system releases the lock when the process ends.

        Raises:
            UserError: another process holds the lock, named with its host, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / ".lock").open("a+")
        except OSError as error:
            raise UserError(f"output directory {self.path} cannot be written: {error.strerror}") from error
        with stream:
            try:
                # Not flock: forked decoding workers inherit it and outlive a killed run for seconds.
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                stream.seek(0)
                owner = stream.read().strip() or "an unnamed process"
                raise UserError(f"output directory {self.path} is in use by {owner}") from None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            yield
            stream.truncate(0)


def dump_config(config: ExperimentConfig) -> str:
    """Dump the resolved configuration as YAML that `--config` accepts."""
    return yaml.safe_dump(plain(asdict(config)), sort_keys=False)


def check_same_experiment(file: Path, config: ExperimentConfig) -> None:
    """Compare the settings that affect training with those recorded, if `file` exists.

    Raises:
        UserError: names the first key that differs and both values; an older version of vidtl may have written it.
    """
    if not file.exists():
        return
    try:
        recorded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        recorded = None
    if not isinstance(recorded, dict):
        raise UserError(f"{file} is not a configuration of a run; give another output directory")
    for key, old, new in differences(dotted(recorded), config, affecting=["training"])[:1]:
        other_version = ", because another version of vidtl wrote it" if "(absent)" in (old, new) else ""
        raise UserError(
            f"{file} holds another experiment: {key} is {old!r} there and {new!r} here{other_version}; "
            "give another output directory, or the same value"
        )
