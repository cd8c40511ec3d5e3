"""ZeRO 1 and 2 through DeepSpeed: each process keeps a part of the optimizer's state (2: and of the gradients).

The model is whole in every process. DeepSpeed lays the parameters of each optimizer group out as one flat tensor, of
which each process updates an equal part; the parts are then exchanged. All else is as in the other forms: precision is
autocast over float32 weights, and accumulation, learning rate and what becomes of a step are decided here, not there.
"""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from vidtl.errors import UserError
from vidtl.training.optimizer import MuonWithAdamW

_BUCKET = 50_000_000
"""Gradients exchanged at once; the default of ten times as many would take 2 GB of every GPU."""
_COUNTERS = {"step"}
"""State that an optimizer keeps once per tensor instead of once per weight."""


class ZeroStrategy:
    """See `vidtl.training.strategy.Strategy`."""

    needs_warm_up = False

    def __init__(self, model: nn.Module, optimizer: Optimizer, accelerator: Accelerator, stage: int) -> None:
        if isinstance(optimizer, MuonWithAdamW):
            raise UserError(
                "optimizer.name is 'muon', which needs whole matrices, together with DEEPSPEED, which cuts them; "
                "allowed: 'adamw', 'sgd'"
            )
        self._optimizer = optimizer
        self._rank = accelerator.process_index
        # As Accelerate prepares a model for evaluation: precision only, without DDP.
        self._engine = _start(accelerator.prepare_model(model, evaluation_mode=True), optimizer, stage, accelerator)
        self._zero = self._engine.optimizer
        self.model: nn.Module = self._engine
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._groups: list[dict[str, nn.Parameter]] = [
            {names[parameter]: parameter for parameter in group} for group in self._zero.bit16_groups
        ]
        """Parameters by name, of each group of the optimizer."""
        self._flat: list[Tensor] = self._zero.bit16_groups_flat
        """The weights of each group, of which the parameters are views."""

    @contextmanager
    def pass_of(self, *, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)

    def clip(self, max_norm: float) -> Tensor:
        self._zero.clip_grad = 0.0 if math.isinf(max_norm) else max_norm
        norm: Tensor = self._zero.scaled_global_norm()
        return torch.where(norm < 0, math.inf, norm)  # -1 stands for one that is not finite

    def step(self) -> bool:
        self._engine.step()
        return not self._zero.overflow

    def drop_gradients(self) -> None:
        self._zero.zero_grad(set_to_none=True)

    def optimizer_tensors(self) -> Iterator[tuple[str, Tensor]]:
        parts = self._zero.single_partition_of_fp32_groups
        for group, flat, part in zip(self._groups, self._flat, parts, strict=True):
            for key, value in self._optimizer.state.get(part, {}).items():
                if key in _COUNTERS:
                    yield from ((f"{name}.{key}", value.clone()) for name in group)
                elif isinstance(value, Tensor):
                    state = torch.empty_like(flat)
                    torch.distributed.all_gather_into_tensor(state, value)
                    yield from ((f"{name}.{key}", _place(state, flat, p).clone()) for name, p in group.items())

    def load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        self._zero.refresh_fp32_params()
        group_of = {name: number for number, group in enumerate(self._groups) for name in group}
        state: dict[int, dict[str, Tensor]] = {}
        for full_name, tensor in tensors.items():
            name, key = full_name.rsplit(".", 1)
            number = group_of[name]
            flat, of_group = self._flat[number], state.setdefault(number, {})
            if key in _COUNTERS:
                of_group[key] = tensor
            else:
                whole = of_group.setdefault(key, torch.zeros(flat.shape, dtype=flat.dtype))
                _place(whole, flat, self._groups[number][name]).copy_(tensor)
        own = {number: self._own_parts(of_group) for number, of_group in state.items()}
        self._optimizer.load_state_dict({"state": own, "param_groups": self._optimizer.state_dict()["param_groups"]})

    def _own_parts(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        processes = torch.distributed.get_world_size()
        return {
            key: value if key in _COUNTERS else value.chunk(processes)[self._rank].clone()
            for key, value in state.items()
        }


def _place(state: Tensor, flat: Tensor, parameter: nn.Parameter) -> Tensor:
    """The state of one parameter within that of its group: where the parameter itself lies in the flat weights."""
    start = parameter.storage_offset() - flat.storage_offset()
    return state[start : start + parameter.numel()].view(parameter.shape)


def _start(model: nn.Module, optimizer: Optimizer, stage: int, accelerator: Accelerator) -> Any:
    """DeepSpeed's engine, with everything left out that is not its part here."""
    os.environ.setdefault("DS_ACCELERATOR", accelerator.device.type)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it logs to the standard output
    # On a CPU it would compile an exchange through shared memory, for minutes, which only inference uses.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        dist_init_required=False,
        config={
            "zero_optimization": {"stage": stage, "reduce_bucket_size": _BUCKET, "allgather_bucket_size": _BUCKET},
            "zero_allow_untested_optimizer": True,
            "gradient_accumulation_steps": 1,
            "train_micro_batch_size_per_gpu": 1,  # asked for, and without effect on a step
            "steps_per_print": 2**62,
        },
    )
    return engine
