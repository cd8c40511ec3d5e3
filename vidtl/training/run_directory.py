"""The output directory of a run: one experiment, one run at a time, nothing overwritten by a start that fails."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import yaml

from vidtl.config import ExperimentConfig
from vidtl.config.compare import differences, dotted, plain
from vidtl.errors import UserError
from vidtl.runtime.files import user_error_if_not_written, whole_file
from vidtl.training.checkpoint import EXPERIMENT, list_checkpoints, newest_valid, remove_leftovers, set_aside_newer


class RunDirectory:
    """Paths of a run, and the checks before anything is written there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.unreadable_file = path / "unreadable.jsonl"
        self.summary_file = path / "summary.json"
        self.stacks = path / "stacks"
        self.checkpoints = path / "checkpoints"

    def find_checkpoint(self, config: ExperimentConfig) -> Path | None:
        """The checkpoint to go on from, None in a new directory; writes nothing.

        Raises:
            UserError: the directory holds another experiment, or checkpoints of which none is whole, or any checkpoint
                while `training.resume` is `never`.
        """
        if config.training.resume == "never" and list_checkpoints(self.checkpoints):
            raise UserError(
                f"training.resume is 'never' and {self.checkpoints} has checkpoints; "
                "allowed: 'auto' to go on from the newest, or another output directory"
            )
        checkpoint = newest_valid(self.checkpoints)
        if checkpoint is None and list_checkpoints(self.checkpoints):
            raise UserError(
                f"no checkpoint in {self.checkpoints} is whole (see the warnings above); "
                "move them away to start from the beginning, or give another output directory"
            )
        for file in (self.config_file, *([checkpoint / EXPERIMENT] if checkpoint else [])):
            check_same_experiment(file, config)
        return checkpoint

    def take(self, config: ExperimentConfig, checkpoint: Path | None) -> None:
        """Record the configuration and clear away what a killed run left unfinished; after all checks have passed.

        `checkpoint` is the one to go on from: those after it, which are damaged, are set aside.

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
        """Keep other runs out while the block lasts; the lock goes with the process, however that ends.

        Raises:
            UserError: a running process has it; names the process and its host.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / ".lock").open("a+")
        except OSError as error:
            raise UserError(f"output directory {self.path} cannot be written: {error.strerror}") from error
        with stream:
            try:
                # Not flock: forked decoding workers would inherit it and outlive a killed run for seconds.
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
    """The whole configuration as YAML that can be given back as a configuration file."""
    return yaml.safe_dump(plain(asdict(config)), sort_keys=False)


def check_same_experiment(file: Path, config: ExperimentConfig) -> None:
    """Compare the settings that affect training with those recorded; no file is no difference.

    Raises:
        UserError: names the first key that differs, and both values.
    """
    if not file.exists():
        return
    try:
        recorded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        recorded = None
    if not isinstance(recorded, dict):
        raise UserError(f"{file} is not a configuration: this is not a run's directory; give another output directory")
    for key, old, new in differences(dotted(recorded), config, affecting=["training"])[:1]:
        raise UserError(
            f"{file} holds another experiment: {key} is {old!r} there and {new!r} here; "
            "give another output directory, or the same value"
        )
