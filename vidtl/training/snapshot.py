"""Contents of a checkpoint: complete tensors under the model's own names.

Compiled, DDP and FSDP2 models give and take the same snapshot, so a run may resume in another form.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER
from vidtl.training.ema import WeightAverage
from vidtl.training.optimizer import load_optimizer_tensors, optimizer_tensors
from vidtl.training.sharding import gathered, sharded_like


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name; empty in all processes but the main one."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    """All weights, averaged ones in place of trained ones; None where the run keeps no average."""
    optimizer: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Size of all tensors in bytes."""
        tensors = [*self.weights.values(), *(self.average or {}).values(), *self.optimizer.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def take_snapshot(
    model: nn.Module, average: WeightAverage | None, optimizer: Optimizer, is_main_process: bool
) -> Snapshot:
    """Gather all tensors in the main process; every process must call this."""
    weights = _on_cpu(model.state_dict().items(), is_main_process)
    averaged = _on_cpu(average.tensors.items(), is_main_process) if average else None
    return Snapshot(
        weights=weights,
        average=None if averaged is None else weights | averaged,
        optimizer=_on_cpu(optimizer_tensors(optimizer, model).items(), is_main_process),
    )


def _on_cpu(tensors: Iterable[tuple[str, Tensor]], keep: bool) -> dict[str, Tensor]:
    on_cpu = {}
    for name, tensor in tensors:
        complete = gathered(tensor.detach())
        if keep:  # one at a time: the device may not have room for all
            on_cpu[name] = complete.cpu()
    return on_cpu


def load_snapshot(directory: Path, model: nn.Module, average: WeightAverage | None, optimizer: Optimizer) -> None:
    """Restore a checkpoint; every process must call this.

    Raises RuntimeError, KeyError or SafetensorError for tensors of another model.
    """
    model.load_state_dict(_sharded(load_file(directory / MODEL), model.state_dict()))
    load_optimizer_tensors(optimizer, model, load_file(directory / OPTIMIZER))
    if average:
        average.load(_sharded(load_file(directory / EMA / MODEL), average.tensors))


def _sharded(tensors: dict[str, Tensor], examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: sharded_like(tensor, examples.get(name, tensor)) for name, tensor in tensors.items()}


def save_optimizer(snapshot: Snapshot, directory: Path) -> None:
    """Write the optimizer's tensors; `TrainingTask.save_model` writes the model's."""
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.optimizer.items()}
    save_file(tensors, directory / OPTIMIZER)
