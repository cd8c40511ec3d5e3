"""Checkpoint directories: written whole, verified by checksums, and pruned.

Written last, `manifest.json` holds sizes and SHA-256 sums. A checkpoint never changes afterwards; the newest is that of
the highest step whose manifest verifies. No file is a pickle.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from vidtl.config.documents import read_json
from vidtl.errors import UserError
from vidtl.runtime.files import flush_to_disk, problem_of_disk, remove, replacing

MODEL, CONFIG, OPTIMIZER = "model.safetensors", "config.json", "optimizer.safetensors"
STATE, EXPERIMENT, MANIFEST = "state.json", "experiment.yaml", "manifest.json"
EMA = "ema"
"""Folder of a checkpoint with the averaged weights, as a model directory, where the run keeps an average."""
UNMERGED = "unmerged.safetensors"
"""File beside the model's with the same weights as they are trained, adapters apart, where the run has adapters."""
CHECKPOINTS, METRICS_FILE = "checkpoints", "metrics.jsonl"
_FORMAT = "vidtl-checkpoint-2"
NAME = re.compile(r"step-(\d{8,})")
_FILE_NAME = re.compile(rf"({EMA}/)?\w[\w.-]{{,99}}", re.ASCII)
_UNFINISHED, _DAMAGED = ".tmp", ".damaged"
_SPARE_BYTES = 16 * 2**20

_log = logging.getLogger(__name__)


def checkpoint_name(step: int) -> str:
    """Return the directory name of the checkpoint after `step` finished steps."""
    return f"step-{step:08d}"


def checkpoint_step(directory: Path) -> int:
    """Return the number of finished steps; the inverse of `checkpoint_name`."""
    match = NAME.fullmatch(directory.name)
    assert match is not None, directory
    return int(match[1])


def list_checkpoints(folder: Path) -> list[Path]:
    """List the directories named like a checkpoint, newest first, without verifying them."""
    named = (path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir())
    return sorted(named, key=checkpoint_step, reverse=True)


@contextmanager
def new_checkpoint(folder: Path, step: int, content_bytes: int) -> Iterator[Path]:
    """Yield an empty directory that becomes the checkpoint of `step`; UserError, and no file left, if it cannot."""
    target = folder / checkpoint_name(step)
    replaced = target.with_name(f"{target.name}.replaced{_UNFINISHED}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _free(folder) < content_bytes + _SPARE_BYTES:
            raise OSError("not enough room on the disk")
        with replacing(target, is_folder=True) as temporary:
            yield temporary
            _seal(temporary, target.name)
            if _is_ours(target):  # it is damaged, or the run would not write this step again
                target.rename(replaced)
            elif os.path.lexists(target):
                _set_aside(target)
        flush_to_disk(folder)
        remove(replaced)
    except (OSError, SafetensorError, UserError) as error:
        problem = f"{problem_of_disk(error.__cause__ or error)} ({content_bytes} bytes needed, {_free(folder)} free)"
        raise UserError(f"checkpoint {target} could not be written: {problem}; earlier ones are intact") from error


def _seal(directory: Path, name: str) -> None:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    with ThreadPoolExecutor(2) as pool:  # hashing overlaps with the disk
        sums = pool.map(sha256, paths)
        for path in paths:
            flush_to_disk(path)
        files = {
            path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256}
            for path, sha256 in zip(paths, sums, strict=True)
        }
    manifest = directory / MANIFEST
    manifest.write_text(json.dumps({"format": _FORMAT, "name": name, "files": files}, indent=1), encoding="utf-8")
    flush_to_disk(manifest)


def find_problem(directory: Path, name: str | None = None, hashed: Collection[str] | None = None) -> str | None:
    """Return the first difference in size, in the content of files in `hashed` (None: all), or in `name`; else None."""
    try:
        manifest = read_json(_own_file(directory, MANIFEST))
        if str(manifest["format"]) < _FORMAT and str(manifest["format"]).startswith("vidtl-checkpoint-"):
            return f"an older version of vidtl wrote it ({MANIFEST} has format {manifest['format']})"
        if manifest["format"] != _FORMAT or name not in (None, manifest["name"]):
            return f"{MANIFEST} belongs to another checkpoint"
        files: dict[str, Any] = manifest["files"]
        for file in {MODEL, OPTIMIZER, STATE, EXPERIMENT} - set(files):
            return f"{MANIFEST} does not list {file}"
        for file, expected in files.items():
            path = _own_file(directory, file)
            if path.stat().st_size != expected["bytes"]:
                return f"{file} has {path.stat().st_size} bytes, {MANIFEST} has {expected['bytes']}"
            if (hashed is None or file in hashed) and sha256(path) != expected["sha256"]:
                return f"{file} differs from the SHA-256 in {MANIFEST}"
    except (OSError, UserError) as error:
        return str(error)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def _own_file(directory: Path, name: str) -> Path:
    """Return a file of a checkpoint; UserError unless it lies there or, in a snapshot of the hub, in that cache."""
    if not _FILE_NAME.fullmatch(name):
        raise UserError(f"{MANIFEST} lists {name[:80]!r}; allowed: names of files, or {EMA}/ and a name")
    path, bound = directory / name, directory.resolve()
    bound = next((each for each in bound.parents if each.name.startswith("models--")), bound)
    if not path.is_file():
        raise UserError(f"{name}{'' if name == MANIFEST else f', which {MANIFEST} lists,'} is missing")
    if not path.resolve().is_relative_to(bound):
        raise UserError(f"{name} is a link to a file outside of the checkpoint")
    return path


def newest_valid(folder: Path, hashed: Collection[str] | None = None) -> Path | None:
    """Return the newest checkpoint that verifies, or None; warn of newer ones that do not. `hashed`: `find_problem`."""
    for directory in list_checkpoints(folder):
        problem = find_problem(directory, directory.name, hashed)
        if problem is None:
            return directory
        if not directory.exists():  # its run has just removed it, and has newer ones
            return newest_valid(folder, hashed)
        _log.warning("checkpoint %s is skipped: %s", directory, problem)
    return None


def remove_unusable(folder: Path, checkpoint: Path | None) -> None:
    """Remove unfinished directories, and rename damaged ones newer than `checkpoint`, which `prune` would keep."""
    for path in folder.glob(f"step-*{_UNFINISHED}"):
        if NAME.fullmatch(path.name.split(".")[0]):
            remove(path)
    for directory in list_checkpoints(folder):
        if directory == checkpoint:
            return
        _set_aside(directory)


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints except the newest `keep` and the one of `best_step`; other folders stay."""
    for directory in list(filter(_is_ours, list_checkpoints(folder)))[keep:]:
        if checkpoint_step(directory) != best_step:
            # Renamed first: a half-removed directory must not look like a checkpoint.
            remove(directory.rename(directory.with_name(directory.name + _UNFINISHED)))


def _is_ours(directory: Path) -> bool:
    """Return True for a checkpoint, damaged or not, and False for a folder of someone else."""
    return (directory / MANIFEST).is_file()


def _set_aside(path: Path) -> None:
    aside = path.with_name(path.name + _DAMAGED)
    while os.path.lexists(aside):
        aside = aside.with_name(aside.name + _DAMAGED)
    path.rename(aside)
    _log.warning("checkpoint %s is damaged and renamed to %s", path, aside.name)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
