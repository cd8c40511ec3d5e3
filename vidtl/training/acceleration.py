"""Compiled code, and activations computed twice instead of kept. Both leave the names of all parameters as they are."""

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
    """From now on, each block keeps its input only and computes its activations again in the backward pass.

    The random state is put back for the second pass, so that dropout and stochastic depth are those of the first.

    Raises:
        UserError: the model has batch norms, whose running statistics would take in each batch twice.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        raise UserError(
            f"training.activation_checkpointing is true; allowed: false with a {type(model).__name__} that has batch "
            "norms, since their running statistics would take in each batch twice"
        )
    for block in _blocks(model):
        block.forward = _forward_again(block.forward)


def _forward_again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def checkpointed(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=True)

    return checkpointed


def compile_model(model: nn.Module, what: Literal["none", "blocks", "model"], device: torch.device) -> None:
    """Let `torch.compile` work on each block, or on the whole model, when it is first called.

    Blocks that are alike share their code, which makes `blocks` the quicker one to start; `model` also joins what is
    between blocks.

    Raises:
        UserError: this machine lacks the compiler that generated code goes through.
    """
    if what == "none":
        return
    check_compiler(what, device)
    for module in [model] if what == "model" else _blocks(model):
        module.compile()


def check_compiler(what: str, device: torch.device) -> None:
    """UserError where generated code could not be compiled, before an hour of queueing ends in a traceback."""
    default = ("CC", "gcc") if device.type == "cuda" else ("CXX", "clang++" if sys.platform == "darwin" else "g++")
    variable, name = default[0], os.environ.get(default[0]) or default[1]
    if shutil.which(name) is None:
        raise UserError(
            f"training.compile is {what!r}, for which torch.compile needs a compiler, and {name!r} is not installed; "
            f"allowed: 'none', or install it (Debian: apt install g++) or name another in the variable {variable}"
        )


def _blocks(model: nn.Module) -> list[nn.Module]:
    assert isinstance(model, VideoModel), type(model)
    return model.repeated_blocks()
