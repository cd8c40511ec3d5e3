"""torch.compile and activation checkpointing. Both keep the names of all parameters."""

import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vidtl.errors import UserError
from vidtl.models.base import VideoModel


def checkpoint_activations(model: nn.Module) -> None:
    """Recompute the activations of each block in the backward pass, with the same dropout and stochastic depth.

    Raises:
        UserError: the model has batch norms, whose running statistics would count each batch twice.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise UserError(
            f"training.activation_checkpointing is true; allowed: false with a {type(model).__name__} that has batch "
            "norms, whose running statistics would count each batch twice"
        )
    for block in _blocks(model):
        block.forward = _checkpointed(block.forward)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def forward_checkpointed(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=True)

    return forward_checkpointed


def compile_model(model: nn.Module, mode: Literal["none", "blocks", "model"], device: torch.device) -> None:
    """Apply `torch.compile` to each block, or to the whole model, at its first call.

    Equal blocks share their code, so `blocks` starts faster; `model` also fuses operations between blocks.

    Raises:
        UserError: this machine lacks a compiler.
    """
    if mode == "none":
        return
    check_compiler(mode, device)
    for module in [model] if mode == "model" else _blocks(model):
        module.compile()


def check_compiler(mode: str, device: torch.device) -> None:
    """Raise UserError where generated code cannot be compiled."""
    default = ("CC", "gcc") if device.type == "cuda" else ("CXX", "clang++" if sys.platform == "darwin" else "g++")
    variable, name = default[0], os.environ.get(default[0]) or default[1]
    if shutil.which(name) is None:
        raise UserError(
            f"training.compile is {mode!r}, which needs the compiler {name!r}, and it is not installed; "
            f"allowed: 'none', or install it (Debian: apt install g++) or set {variable} to another"
        )


def _blocks(model: nn.Module) -> list[nn.Module]:
    assert isinstance(model, VideoModel), type(model)
    return model.repeated_blocks()
