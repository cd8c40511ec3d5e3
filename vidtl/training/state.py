"""State of a run in a checkpoint: complete tensors under the model's own names, in any form of a run, and position."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vidtl.config.documents import read_json
from vidtl.errors import UserError
from vidtl.metrics.table import Metric
from vidtl.training.checkpoint import Best
from vidtl.training.checkpoint_directory import EMA, MODEL, OPTIMIZER, STATE, UNMERGED
from vidtl.training.lora import has_adapters
from vidtl.training.model_setup import gathered, sharded_like
from vidtl.training.optimizer import WeightAverage, load_optimizer_tensors, optimizer_tensors


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Properties of the data that must not change within a run; None is unknown and not compared."""

    num_classes: int
    num_videos: int | None = None
    steps_per_epoch: int
    data_sha256: str | None = None
    """Hash of class names, video ids and labels, in order."""


@dataclass(kw_only=True)
class TrainingState:
    """Progress of a run."""

    step: int = 0
    videos_asked: int = 0
    """Videos requested from the loader, without substitutes."""
    videos_unreadable: int = 0
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last line of `metrics.jsonl`."""
    recent_accuracies: list[float] = field(default_factory=list)
    """Shares of right clips in the same steps; empty where clips are mixed or have several labels."""
    best: Best | None = None
    evaluated_step: int = 0
    """Step of the last evaluation that `best` and `evaluations_since_best` include."""
    evaluations_since_best: int = 0
    nonfinite_steps: int = 0
    nonfinite_in_a_row: int = 0
    scaler: dict[str, Any] | None = None
    """fp16 only: the loss scale and its counters."""

    def add_evaluation(self, step: int, metric: Metric, metrics: Mapping[str, float | None]) -> bool:
        """Return True if the evaluation of `step` is the best so far; one that was added before changes nothing."""
        if step <= self.evaluated_step:
            return False
        self.evaluated_step = step
        value, sign = metrics.get(metric.name), 1 if metric.higher_is_better else -1
        value = math.nan if value is None else value
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best.value):
            self.best, self.evaluations_since_best = Best(metric.name, value, step), 0
        else:
            self.evaluations_since_best += 1
        return self.evaluations_since_best == 0


def write_state(directory: Path, state: TrainingState, facts: RunFacts, about: dict[str, Any]) -> None:
    """Write `state.json`; `about` adds information for people (seed, epoch, processes)."""
    content = {**asdict(state), "facts": asdict(facts), "about": about}
    (directory / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_state(directory: Path, facts: RunFacts) -> TrainingState:
    """Read `state.json` of a verified checkpoint; UserError for other data, or a file of another version of vidtl."""
    try:
        content = {"recent_accuracies": []} | read_json(directory / STATE)
        recorded = {name: content["facts"][name] for name in asdict(facts)}
        content["best"] = Best(**content["best"]) if content["best"] else None
        state = TrainingState(**{each.name: content[each.name] for each in fields(TrainingState)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / STATE} was written by another version of vidtl: {error}") from error
    for name, now in asdict(facts).items():
        if (before := recorded[name]) not in (None, now):
            found = f"{name} is {before!r} there, {now!r} here; restore classes, videos, labels and their order"
            raise UserError(f"checkpoint {directory} has other data: {found}, or give another output directory")
    return state


@dataclass(frozen=True)
class Snapshot:
    """Tensors of a checkpoint by name; empty in all processes but the main one."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    """All weights, averaged ones in place of trained ones; None where the run keeps no average."""
    optimizer: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Size of all tensors in bytes, those of a model with adapters as trained and merged."""
        models = [*self.weights.values(), *(self.average or {}).values()] * (2 if has_adapters(self.weights) else 1)
        return sum(tensor.nbytes for tensor in (*models, *self.optimizer.values()))


def take_snapshot(
    model: nn.Module, average: WeightAverage | None, optimizer: Optimizer, is_main_process: bool
) -> Snapshot:
    """Gather all tensors in the main process; every process must call this."""
    weights = _on_cpu(model.state_dict(), is_main_process)
    averaged = weights | _on_cpu(average.tensors, is_main_process) if average else None
    return Snapshot(weights, averaged, _on_cpu(optimizer_tensors(optimizer, model), is_main_process))


def _on_cpu(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    on_cpu = {}
    for name, tensor in tensors.items():
        complete = gathered(tensor.detach())
        if keep:  # one at a time: the device may not have room for all
            on_cpu[name] = complete.cpu()
    return on_cpu


def load_snapshot(directory: Path, model: nn.Module, average: WeightAverage | None, optimizer: Optimizer) -> None:
    """Restore a checkpoint; every process must call this. RuntimeError, KeyError, SafetensorError for another model."""
    model.load_state_dict(_read_weights(directory, model.state_dict()))
    load_optimizer_tensors(optimizer, model, load_file(directory / OPTIMIZER))
    if average:
        average.load(_read_weights(directory / EMA, average.tensors))


def _read_weights(directory: Path, examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    unmerged = directory / UNMERGED
    tensors = load_file(unmerged if unmerged.exists() else directory / MODEL)
    return {name: sharded_like(tensor, examples.get(name, tensor)) for name, tensor in tensors.items()}
