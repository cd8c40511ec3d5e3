"""A trained model on the disk, found from what a user gives: a run and its best evaluation, or a model directory."""

import hashlib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidtl.config.documents import read_json
from vidtl.errors import UserError, did_you_mean, existing
from vidtl.metrics.table import METRICS, Metric, metrics_of
from vidtl.runtime.logging import read_json_lines
from vidtl.training import checkpoint_directory as checkpoints
from vidtl.training.checkpoint_directory import CHECKPOINTS, CONFIG, EMA, EXPERIMENT, MANIFEST, checkpoint_step

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A trained model on the disk: a checkpoint of a run, or any other model directory."""

    path: Path
    step: int | None = None
    """Finished optimizer steps; None for a directory that is not named like a checkpoint."""
    run: Path | None = None
    """Folder of the run that has the checkpoint among its own."""
    averaged: bool = False
    remark: str = ""
    """Why this one of a run, such as `best top-1 66.7` or `last`."""

    def __str__(self) -> str:
        place = self.model_directory
        place = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
        return f"{place} ({self.remark})" if self.remark else str(place)

    @property
    def model_directory(self) -> Path:
        """Directory with `model.safetensors` and `config.json`."""
        return self.path / EMA if self.averaged else self.path

    @property
    def experiment_file(self) -> Path | None:
        """Configuration of the run; None for a model directory that came without one."""
        file = self.path / EXPERIMENT
        return file if file.is_file() else None

    @property
    def output_folder(self) -> Path:
        """Folder for results: the run, or the model directory."""
        return self.run or self.path

    def with_average(self) -> "Checkpoint":
        """Return the same checkpoint with averaged weights, where it has them."""
        return replace(self, averaged=(self.path / EMA / CONFIG).is_file())

    def verify(self) -> None:
        """Compare all bytes of the model's files with the manifest; UserError for one that has changed."""
        if (self.path / MANIFEST).is_file():
            _check_usable(self.path, self._model_files())

    def fingerprint(self) -> str:
        """Compute a SHA-256 of weights and model settings, from the manifest's sums where there is a manifest."""
        manifest = self.path / MANIFEST
        listed = read_json(manifest)["files"] if manifest.is_file() else {}
        known = {name: entry["sha256"] for name, entry in listed.items()}
        sums = [known.get(name) or checkpoints.sha256(self.path / name) for name in self._model_files()]
        return hashlib.sha256(bytes.fromhex("".join(sums))).hexdigest()

    def _model_files(self) -> list[str]:
        return [f"{EMA}/{name}" if self.averaged else name for name in (CONFIG, checkpoints.MODEL)]


def find_checkpoint(path: Path, step: str = "") -> Checkpoint:
    """Find the model of a run (see `choose_step`), a checkpoint, its `ema` or a directory; UserError if incomplete."""
    require_directory(path)
    path = path if path.is_absolute() else path.resolve()  # the run is found by the folders above the checkpoint
    if (path / CONFIG).is_file():
        if step:
            raise UserError(f"--step is {step!r} and {str(path)!r} is one model; allowed: a run, or no --step")
        averaged = path.name == EMA and (path.parent / EXPERIMENT).is_file()
        found = _described(path.parent if averaged else path, averaged)
        if found.experiment_file:
            _check_usable(found.path, hashed=())
        return found
    folder = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    steps = [checkpoint_step(directory) for directory in checkpoints.list_checkpoints(folder)]
    number, remark = choose_step(step, steps, folder.with_name(checkpoints.METRICS_FILE))
    named = None if number is None else folder / checkpoints.checkpoint_name(number)
    directory = named or checkpoints.newest_valid(folder, hashed=())
    if directory is None:
        raise UserError(f"{str(path)!r} holds no valid checkpoint and no {CONFIG}")
    if named:  # the newest one is verified already
        _check_usable(directory, hashed=())
    return replace(_described(directory), remark=remark)


def require_directory(path: Path) -> None:
    """Raise a UserError with the nearest name if a model directory does not exist, or is a file."""
    try:
        is_directory = existing(path, "model directory").is_dir()
    except UserError as error:
        hub = f"; `hf download {path} --local-dir DIR` makes one of the hub" if _HUB_NAME.fullmatch(str(path)) else ""
        raise UserError(f"{error}{hub}") from None
    if not is_directory:
        raise UserError(f"{str(path)!r} is a file; allowed: a folder with a model, such as {str(path.parent)!r}")


def _check_usable(path: Path, hashed: Collection[str]) -> None:
    if problem := checkpoints.find_problem(path, hashed=hashed):
        raise UserError(f"checkpoint {str(path)!r} cannot be used: {problem}")


def _described(path: Path, averaged: bool = False) -> Checkpoint:
    run = path.parents[1] if path.parent.name == CHECKPOINTS else None
    return Checkpoint(path, checkpoint_step(path) if checkpoints.NAME.fullmatch(path.name) else None, run, averaged)


@dataclass(frozen=True)
class Best:
    """Best evaluation during training."""

    metric: str
    value: float
    step: int

    def __str__(self) -> str:
        return METRICS[self.metric].brief(self.value)


def find_best_metric(name: str, multi_label: bool, num_classes: int) -> Metric:
    """Return the metric of `training.best_metric`, '' for the first one; UserError where it does not fit the data."""
    fitting = {metric.name: metric for metric in metrics_of(multi_label, num_classes)}
    if name and name not in fitting:
        labels = f"{'multi' if multi_label else 'single'}-label data of {num_classes} classes"
        raise UserError(f"training.best_metric is {name!r}; with {labels}, {did_you_mean(name, fitting)}")
    return fitting[name] if name else next(iter(fitting.values()))


def read_best(metrics_file: Path) -> Best | None:
    """Return the last evaluation that `metrics.jsonl` marks as the best so far; None without one."""
    best = None
    for line in read_json_lines(metrics_file):
        metric = str(line.get("best"))
        value = line.get(metric)
        if metric in METRICS and isinstance(value, float | int) and math.isfinite(value):
            best = Best(metric, value, line["step"])
    return best


def choose_step(wanted: str, steps: Sequence[int], metrics_file: Path) -> tuple[int | None, str]:
    """Choose among the checkpoints of a run, given their steps: the step, None for the newest valid one, and a remark.

    `wanted` is `best`, `last`, a step, or '' for the best one where the run kept it, else the last. UserError for none.
    """
    best = read_best(metrics_file)
    kept = best.step if best and best.step in steps else None
    if wanted == "last" or (wanted == "" and kept is None):
        return None, "last"
    number = kept if wanted in ("", "best") else int(wanted) if wanted.isdecimal() else None
    if number in steps:
        return number, f"best {best}" if number == kept else ""
    allowed = did_you_mean(wanted, ["last", *["best"] * bool(kept), *map(str, steps)])
    raise UserError(f"--step is {wanted!r}, and the run has no such checkpoint; {allowed}")
