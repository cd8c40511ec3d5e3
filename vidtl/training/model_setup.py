"""Preparation of a model for training: freezing, activation checkpointing, torch.compile and FSDP2.

Parameter names never change. Without FSDP2, the functions for sharded tensors return their input.
"""

import copy
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from vidtl.config.checks import require, require_choice
from vidtl.models.base import VideoModel, token_choices


def freeze_all_but(model: nn.Module, parts: Sequence[str]) -> None:
    """Freeze every parameter outside of `parts`; empty `parts` freeze nothing. `head` is the classifier of any model.

    UserError where the model lacks a name, or no parameter is left to train.
    """
    if not parts:
        return
    names = [name for name, _ in model.named_parameters()]
    known = sorted({".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)})
    trained = [model.classifier()[0] if part == "head" and isinstance(model, VideoModel) else part for part in parts]
    for part in trained:
        require_choice("training.trainable", part, known)
    for name, parameter in model.named_parameters():
        if not lies_in(name, trained):
            parameter.requires_grad_(False)
    trains = any(parameter.requires_grad for parameter in model.parameters())
    require(trains, "training.trainable", list(parts), "parts with trainable parameters")


def lies_in(name: str, parts: Sequence[str]) -> bool:
    """Return whether a parameter is one of `parts`, or belongs to a module among them."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def completely_frozen(module: nn.Module) -> list[nn.Module]:
    """Return the largest modules without parameters to train, whose running statistics should stay, too."""
    gradients = [parameter.requires_grad for parameter in module.parameters()]
    if gradients and not any(gradients):
        return [module]
    return [part for child in module.children() for part in completely_frozen(child)]


def checkpoint_activations(model: nn.Module) -> None:
    """Recompute activations in the backward pass, with the same random numbers; UserError for batch norms."""
    has_batch_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    allowed = "false with batch norms, whose running statistics would count each batch twice"
    require(not has_batch_norms, "training.activation_checkpointing", True, allowed)

    def forward_checkpointed(forward: Callable[..., Any], *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=True)

    for block in repeated_blocks(model):
        block.forward = partial(forward_checkpointed, block.forward)


def compile_model(model: nn.Module, mode: Literal["none", "blocks", "model"], device: torch.device) -> None:
    """Apply `torch.compile` to each block, or to the whole model, at its first call.

    Equal blocks share their code, so `blocks` starts faster. UserError where this machine lacks a compiler.
    """
    if mode == "none":
        return
    allowed = "'none' or 'blocks' with model.token_learner.elastic: each number of tokens would be compiled"
    require(mode == "blocks" or not getattr(model, "elastic_tokens", 0), "training.compile", mode, allowed)
    default = ("CC", "gcc") if device.type == "cuda" else ("CXX", "clang++" if sys.platform == "darwin" else "g++")
    name = os.environ.get(default[0]) or default[1]
    allowed = f"'none' without the compiler {name!r} (Debian: apt install g++; {default[0]} names another)"
    require(shutil.which(name) is not None, "training.compile", mode, allowed)
    for module in [model] if mode == "model" else repeated_blocks(model):
        module.compile()


def token_counts(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return `token_counts` of the passes in training: S of an elastic model, then its smaller choices; else none."""
    most = getattr(model, "elastic_tokens", 0)
    return {"token_counts": (most, *token_choices(most)[:-1])} if most else {}


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks to checkpoint, compile and shard one by one; none for a model that does not list them."""
    blocks: list[nn.Module] = model.repeated_blocks() if hasattr(model, "repeated_blocks") else []  # type: ignore[operator]
    return blocks


def set_fsdp_units(model: nn.Module) -> None:
    """Set the module classes that Accelerate shards as units: those of the model's repeated blocks."""
    model._no_split_modules = sorted({type(block).__name__ for block in repeated_blocks(model)})  # type: ignore[assignment]


def gathered(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, example: Tensor) -> Tensor:
    """Shard a complete tensor, which every process holds, in the same way as `example`."""
    if not isinstance(example, DTensor):
        return tensor
    # Without a source rank nothing is sent: each process takes its part of its own copy.
    return distribute_tensor(
        tensor.to(example.device, example.dtype), example.device_mesh, example.placements, src_data_rank=None
    )


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


def broadcast_from_main(tensors: Sequence[Tensor]) -> None:
    """Copy the main process's values to all processes in one broadcast; every process must call this."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.broadcast(flat, src=0)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(own) for part, own in zip(parts, tensors, strict=True)])
