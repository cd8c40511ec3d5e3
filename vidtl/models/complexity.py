"""Cost of a model, per block and in total: parameters, multiply-adds, memory kept for the backward pass, and time.

Multiply-adds (half of torch's FLOPs) are those of matrix products, convolutions and attention, also inside fused
kernels, without element-wise work (softmax, norms, GELU). The papers' "GFLOPs" are multiply-adds too, of a compiler
that adds element-wise work, and 0.3 to 1.2 % higher.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.model import resolve_model
from vidtl.models import build_model

REST = "(between)"
"""Name of the work outside all stages: concatenation, pooling, reshaping."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Cost of one block or other part of a model, for one clip."""

    name: str
    parameters: int
    multiply_adds: int
    saved_bytes: int
    """Activations kept for the backward pass, counted once, where first kept; without weights and their copies."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Cost of a whole model for one clip."""

    parameters: int
    """Including those without gradient."""
    trainable_parameters: int
    stages: tuple[StageCost, ...]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward pass; a training step takes about three times as many."""
        return sum(stage.multiply_adds for stage in self.stages)

    @property
    def saved_bytes(self) -> int:
        """Activations kept for the backward pass."""
        return sum(stage.saved_bytes for stage in self.stages)


def measure_complexity(
    config: ModelConfig, clip: ClipConfig, num_classes: int, autocast: torch.dtype | None = None
) -> Complexity:
    """Count the cost by the kernels of this CPU, under `autocast` to a dtype if given; UserError as `build_model`."""
    with torch.device("meta"):
        model = build_model(config, clip, num_classes)
    # The difference is the cost of a clip: copies of weights in another dtype are kept once, for all clips.
    (flops, saved), (flops_of_two, saved_of_two) = (_trace(model, clip, batch, autocast) for batch in (1, 2))
    names = stage_names(model)
    counts = {name: count_parameters(model.get_submodule(name)) for name in names}
    counts[REST] = count_parameters(model) - sum(counts.values())
    return Complexity(
        parameters=count_parameters(model),
        trainable_parameters=count_parameters(model, trainable_only=True),
        stages=tuple(
            StageCost(
                name=name,
                parameters=counts[name],
                multiply_adds=flops_of_two[name] // 2 - flops[name] // 2,
                saved_bytes=saved_of_two[name] - saved[name],
            )
            for name in (*names, REST)
        ),
    )


def count_multiply_adds(model: nn.Module, clip: ClipConfig) -> int:
    """Count the multiply-adds of one clip's forward pass; the model may be on the meta device."""
    with torch.no_grad():
        return _trace(model, clip, batch=1, autocast=None)[0].total() // 2


def count_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Count the numbers in all parameters, each once; buffers (running means, masks) are not parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def without_token_learner(config: ModelConfig) -> ModelConfig | None:
    """Return the same model without its TokenLearner, or `None` where there is none."""
    learner = resolve_model(config).token_learner
    return replace(config, token_learner=TokenLearnerConfig(num_tokens=0)) if learner.num_tokens else None


def stage_names(model: nn.Module, prefix: str = "") -> list[str]:
    """Return the names of the stages: child modules, and in place of a child with lists of blocks its blocks."""
    names = []
    for name, child in model.named_children():
        has_lists = any(isinstance(part, nn.ModuleList) for part in (child, *child.children()))
        names += stage_names(child, f"{prefix}{name}.") if has_lists else [f"{prefix}{name}"]
    return names


def time_stages(model: nn.Module, input_BTCHW: Tensor, rounds: int = 5) -> dict[str, float]:
    """Measure the median seconds of each stage in evaluation, after one round; synchronizing adds to them."""
    device = input_BTCHW.device
    started: list[float] = []
    seconds: dict[str, list[float]] = defaultdict(list)
    model.eval()
    with ExitStack() as hooks, torch.no_grad():
        for name in stage_names(model):
            stage = model.get_submodule(name)
            hooks.enter_context(stage.register_forward_pre_hook(lambda *_: started.append(_now(device))))
            leave = lambda *_, name=name: seconds[name].append(_now(device) - started.pop())  # noqa: E731
            hooks.enter_context(stage.register_forward_hook(leave))
        model(input_BTCHW)
        seconds.clear()
        for _ in range(rounds):
            model(input_BTCHW)
    return {name: statistics.median(times) * (len(times) // rounds) for name, times in seconds.items()}


def time_passes(model: nn.Module, input_BTCHW: Tensor, rounds: int = 5) -> tuple[float, float]:
    """Measure the median seconds of a forward pass in evaluation, and of a forward and backward pass in training.

    One pass of each kind warms up; there is no optimizer step. The model stays in training mode, without gradients.
    """

    def median_seconds(with_gradient: bool) -> float:
        model.train(with_gradient)
        times = []
        for _ in range(1 + rounds):
            with torch.set_grad_enabled(with_gradient):
                output = model(input_BTCHW)
            if with_gradient:
                output.float().sum().backward()
                model.zero_grad(set_to_none=True)
            times.append(_now(input_BTCHW.device))
        return statistics.median(end - start for start, end in pairwise(times))

    return median_seconds(False), median_seconds(True)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _trace(
    model: nn.Module, clip: ClipConfig, batch: int, autocast: torch.dtype | None
) -> tuple[Counter[str], Counter[str]]:
    """Run one forward pass on fake CPU tensors; return FLOPs and, where gradients are on, kept bytes by stage."""
    stages = {f"{type(model).__name__}.{name}": name for name in stage_names(model)}
    saved_bytes: Counter[str] = Counter()
    kept: dict[int, Tensor] = {}  # the tensors themselves, so that no second one gets the same number
    with FakeTensorMode():
        state = {name: _fake(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        weights = {_memory(tensor) for tensor in state.values()}

        def keep(tensor: Tensor) -> Tensor:
            memory = _memory(tensor)
            if memory not in kept and memory not in weights:
                kept[memory] = tensor
                stage = next((stages[name] for name in counter.mod_tracker.parents if name in stages), REST)
                saved_bytes[stage] += tensor.untyped_storage().nbytes()
            return tensor

        with (
            FlopCounterMode(display=False, custom_mapping=_attention_formulas()) as counter,
            saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", autocast) if autocast else nullcontext(),
        ):
            functional_call(model, state, (torch.empty(batch, clip.input_frames, 3, *clip.frame_size),))
    flops = Counter({stage: sum(counter.flop_counts[name].values()) for name, stage in stages.items()})
    flops[REST] = counter.get_total_flops() - flops.total()
    return flops, saved_bytes


def _attention_formulas() -> dict[Any, Callable[..., int]]:
    """Return formulas for the fused attention kernels of this version of torch, which itself may count only some."""
    names = ("cudnn_attention", "efficient_attention", "flash_attention", "flash_attention_for_cpu",
             "fused_attention_overrideable")  # fmt: skip
    kernels = (getattr(torch.ops.aten, f"_scaled_dot_product_{name}", None) for name in names)
    count: Any = sdpa_flop_count
    return {kernel: lambda q, k, v, *_, **__: count(q, k, v) for kernel in kernels if kernel is not None}


def _fake(tensor: Tensor) -> Tensor:
    twin = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


def _memory(tensor: Tensor) -> int:
    """Return a number that tensors of the same memory have in common."""
    return int(tensor.untyped_storage()._cdata)
