"""FSDP2: parameters of which each process holds a part, gathered for checkpoints and evaluations and shared out again.

Where nothing is sharded, every function here leaves things as they are.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor that the parts of all processes make up; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of the tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_out_like(tensor: Tensor, example: Tensor) -> Tensor:
    """This process's part of a whole tensor, which every process has, where `example` is in parts."""
    if not isinstance(example, DTensor):
        return tensor
    # Without a source nothing is sent: each process takes its part of what it has read itself.
    return distribute_tensor(
        tensor.to(example.device, example.dtype), example.device_mesh, example.placements, src_data_rank=None
    )


def name_units(model: nn.Module) -> None:
    """Tell Accelerate which blocks to gather one at a time: the model's repeated ones."""
    blocks: list[nn.Module] = model.repeated_blocks() if hasattr(model, "repeated_blocks") else []  # type: ignore[operator]
    model._no_split_modules = sorted({type(block).__name__ for block in blocks})  # type: ignore[assignment]


def without_tensors(model: nn.Module) -> nn.Module:
    """A copy of a model that takes no memory, to put gathered tensors into."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, memo={id(tensor): _empty(tensor) for tensor in tensors})


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Every process holds all of the model while the block lasts, so that each may use it as often as it likes."""
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            # As `fully_shard` decides itself: the outermost part stays whole from its forward to its backward pass.
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()
