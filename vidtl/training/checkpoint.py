"""Checkpoint directories that are either whole or not there.

A checkpoint is written into `step-00000120.tmp`, every file is flushed to the disk, `manifest.json` with their sizes
and SHA-256 sums is written last, and only then does the directory get its name `step-00000120`. Nothing is ever
written into a directory that has its name. The newest checkpoint is the one with the highest step whose manifest
verifies; there is no pointer and no modification time to trust. No file is a pickle.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vidtl.errors import UserError

MODEL, OPTIMIZER, STATE, EXPERIMENT, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "experiment.yaml",
    "manifest.json",
)
EMA = "ema"
"""Folder of a checkpoint: the model with averaged weights, as a model directory, where the run keeps an average."""
_FORMAT = "vidtl-checkpoint-1"
_NAME = re.compile(r"step-(\d{8,})")
_UNFINISHED = ".tmp"
_DAMAGED = ".damaged"
_SPARE_BYTES = 16 * 2**20

_log = logging.getLogger(__name__)


def checkpoint_name(step: int) -> str:
    """Directory name of the checkpoint after `step` finished steps."""
    return f"step-{step:08d}"


def checkpoint_step(directory: Path) -> int:
    """The inverse of `checkpoint_name`."""
    match = _NAME.fullmatch(directory.name)
    assert match is not None, directory
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """Everything in `folder` named like a checkpoint, newest first, whether it verifies or not."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=checkpoint_step, reverse=True)


@contextmanager
def new_checkpoint(folder: Path, step: int, content_bytes: int) -> Iterator[Path]:
    """Yield an empty directory to write files into; when the block ends, it becomes the checkpoint of `step`.

    Raises:
        UserError: the disk has less than `content_bytes` (plus a margin) free, or a write fails; nothing is left
        behind.
    """
    target = folder / checkpoint_name(step)
    temporary = target.with_name(target.name + _UNFINISHED)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_space(folder, target, content_bytes)
        _remove(temporary)
        temporary.mkdir()
        yield temporary
        _seal(temporary, target.name)
        if target.exists():  # it did not verify, or the run would not write this step again
            target.rename(folder / f"{target.name}.replaced{_UNFINISHED}")
        temporary.rename(target)
        _sync(folder)
        _remove(folder / f"{target.name}.replaced{_UNFINISHED}")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"checkpoint {target} could not be written: {error} "
            f"({content_bytes} bytes needed, {_free(folder)} bytes free)"
        ) from error


def _seal(directory: Path, name: str) -> None:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    with ThreadPoolExecutor(2) as beside_the_disk:
        sums = beside_the_disk.map(_sha256, paths)
        for path in paths:
            _sync(path)
        files = {
            path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256}
            for path, sha256 in zip(paths, sums, strict=True)
        }
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps({"format": _FORMAT, "name": name, "files": files}, indent=1), encoding="utf-8")
    _sync(manifest)
    _sync(directory)


def find_problem(directory: Path, name: str | None = None) -> str | None:
    """What is wrong with a checkpoint, naming the file; None where everything is as it was written.

    `name` is what it must have been written as, where the run goes on from it; a copy may have any other.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        if manifest["format"] != _FORMAT or name not in (None, manifest["name"]):
            return f"{MANIFEST} is not this checkpoint's"
        files: dict[str, Any] = manifest["files"]
        for file in {MODEL, OPTIMIZER, STATE, EXPERIMENT} - set(files):
            return f"{MANIFEST} does not list {file}"
        for file, expected in files.items():
            path = directory / file
            if not path.is_file():
                return f"{file}, which {MANIFEST} lists, is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{file} has {path.stat().st_size} bytes and {MANIFEST} says {expected['bytes']}"
            if _sha256(path) != expected["sha256"]:
                return f"{file} has changed since it was written (its SHA-256 is not the one in {MANIFEST})"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def newest_valid(folder: Path) -> Path | None:
    """The checkpoint to go on from, or None; newer ones that do not verify are named in a warning."""
    for directory in list_checkpoints(folder):
        problem = find_problem(directory, directory.name)
        if problem is None:
            return directory
        _log.warning("checkpoint %s is skipped: %s", directory, problem)
    return None


def set_aside_newer(folder: Path, checkpoint: Path | None) -> None:
    """Take their names from the checkpoints after the one that the run goes on from, which do not verify.

    `prune` would count them among the newest, and keep them in the place of whole ones.
    """
    for directory in list_checkpoints(folder):
        if directory == checkpoint:
            return
        aside = directory.with_name(directory.name + _DAMAGED)
        _remove(aside)
        directory.rename(aside)
        _log.warning("checkpoint %s is damaged and kept as %s, which nothing reads", directory, aside.name)


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the one of `best_step`."""
    for directory in list_checkpoints(folder)[keep:]:
        if checkpoint_step(directory) != best_step:
            # Renamed first: a run killed half-way through the removal leaves no directory that looks like a checkpoint.
            _remove(directory.rename(directory.with_name(directory.name + _UNFINISHED)))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left unfinished."""
    for path in folder.glob(f"step-*{_UNFINISHED}"):
        _remove(path)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _require_space(folder: Path, target: Path, content_bytes: int) -> None:
    free = _free(folder)
    if free < content_bytes + _SPARE_BYTES:
        raise UserError(
            f"checkpoint {target} needs {content_bytes + _SPARE_BYTES} bytes and {free} are free; "
            "the run can go on from the checkpoint before it once there is room"
        )
