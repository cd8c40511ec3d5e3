"""What a checkpoint is made of: whole tensors under the model's own names, however the run holds them.

A compiled model, one wrapped for several processes and one that processes share out (FSDP2) give the same snapshot and
take it again, so that a run may go on in another form than it began.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER
from vidtl.training.ema import WeightAverage
from vidtl.training.sharding import shared_out_like, whole


@dataclass(frozen=True)
class Snapshot:
    """Tensors by name; empty in all processes but the first."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    """The weights as they are in the moving average; `None` where the run keeps none."""
    optimizer: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Size of all tensors."""
        tensors = [*self.weights.values(), *(self.average or {}).values(), *self.optimizer.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def take_snapshot(
    model: nn.Module, average: WeightAverage | None, optimizer: Iterable[tuple[str, Tensor]], is_main_process: bool
) -> Snapshot:
    """Gather everything in the first process; every process must call this."""
    weights = _gathered(model.state_dict().items(), is_main_process)
    averaged = _gathered(average.tensors.items(), is_main_process) if average else None
    return Snapshot(
        weights=weights,
        average=None if averaged is None else weights | averaged,
        optimizer=_gathered(optimizer, is_main_process),
    )


def _gathered(tensors: Iterable[tuple[str, Tensor]], keep: bool) -> dict[str, Tensor]:
    gathered = {}
    for name, tensor in tensors:
        complete = whole(tensor.detach())
        if keep:  # one after the other leaves the device, which may not have room for all
            gathered[name] = complete.cpu()
    return gathered


def load_snapshot(
    directory: Path,
    model: nn.Module,
    average: WeightAverage | None,
    load_optimizer: Callable[[dict[str, Tensor]], None],
) -> None:
    """Put back what a checkpoint holds, in every process.

    Raises RuntimeError, KeyError or SafetensorError for tensors of another model.
    """
    model.load_state_dict(_shared_out(load_file(directory / MODEL), model.state_dict()))
    load_optimizer(load_file(directory / OPTIMIZER))
    if average:
        average.load(_shared_out(load_file(directory / EMA / MODEL), average.tensors))


def _shared_out(tensors: dict[str, Tensor], examples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: shared_out_like(tensor, examples.get(name, tensor)) for name, tensor in tensors.items()}


def save_optimizer(snapshot: Snapshot, directory: Path) -> None:
    """Write the optimizer's part; the model's is written by who knows its settings."""
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.optimizer.items()}
    save_file(tensors, directory / OPTIMIZER)
