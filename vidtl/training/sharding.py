"""FSDP2: parameters sharded over processes, gathered for checkpoints and evaluations, and sharded again.

Without sharding, every function here leaves its input unchanged.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def gathered(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's shard, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, example: Tensor) -> Tensor:
    """Shard a complete tensor, which every process holds, in the same way as `example`."""
    if not isinstance(example, DTensor):
        return tensor
    # Without a source rank nothing is sent: each process takes its shard of its own copy.
    return distribute_tensor(
        tensor.to(example.device, example.dtype), example.device_mesh, example.placements, src_data_rank=None
    )


def name_units(model: nn.Module) -> None:
    """Set the module classes that Accelerate shards as units: those of the model's repeated blocks."""
    blocks: list[nn.Module] = model.repeated_blocks() if hasattr(model, "repeated_blocks") else []  # type: ignore[operator]
    model._no_split_modules = sorted({type(block).__name__ for block in blocks})  # type: ignore[assignment]


def without_tensors(model: nn.Module) -> nn.Module:
    """Copy a model onto the meta device, as a target for gathered tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, memo={id(tensor): _empty(tensor) for tensor in tensors})


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Keep the whole model in every process inside the block, for any number of forward passes per process."""
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            # The default of `fully_shard`: the outermost unit stays whole between its forward and backward pass.
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()
