"""Optimizers, learning-rate schedules and the moving average of the weights; state as named tensors."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from vidtl.config import OptimizerConfig, ScheduleConfig
from vidtl.config.checks import require
from vidtl.config.training import parse_length
from vidtl.models.base import VideoModel
from vidtl.training.model_setup import lies_in, local_part, sharded_like

_FUSED_DEVICES = {"cpu", "cuda"}
"""Devices with fused optimizers; on a CPU about 8 times as fast as a loop over the weights."""

Group = dict[str, Any]


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[Group]:
    """Group the trainable parameters by layer, from the input up, and by weight decay.

    Vectors such as biases never decay, nor do the names in `model.no_weight_decay()`. A group's `lr_scale` is
    layer_decay ** (layers above it). With Muon, matrices between first and last layer form groups marked `muon`.
    """
    exempt: set[str] = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    needs_layers = config.layer_decay < 1 or config.name == "muon"
    layers = layer_numbers(model) if needs_layers else dict.fromkeys(names, 0)
    last = max(layers.values(), default=0)
    groups: dict[tuple[int, bool, bool], Group] = {}
    for name in names:
        parameter, layer = model.get_parameter(name), layers[name]
        decays = parameter.ndim > 1 and name not in exempt
        muon = config.name == "muon" and parameter.ndim == 2 and decays and 0 < layer < last
        height = last - layer if config.layer_decay < 1 else 0
        weight_decay = config.weight_decay if decays else 0.0
        group = {"params": [], "weight_decay": weight_decay, "lr_scale": config.layer_decay**height, "muon": muon}
        groups.setdefault((-height, not decays, muon), group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Map parameter names to layers, 0 at the input, as in BEiT's and VideoMAE's layer-wise decay."""
    assert isinstance(model, VideoModel), type(model)
    layers, numbers = model.layers(), {}
    for name, _ in model.named_parameters():
        (numbers[name],) = (number for number, parts in enumerate(layers) if lies_in(name, parts))
    return numbers


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, device: torch.device, sharded: bool = False
) -> Optimizer:
    """Create the optimizer of a model that is already on `device`, and that FSDP2 is going to shard if `sharded`."""
    fused = device.type in _FUSED_DEVICES and not (sharded and config.name == "sgd")  # torch cannot shard its kernel
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        return SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=fused)
    return (MuonWithAdamW if config.name == "muon" else _adamw)(groups, config, fused)


def _adamw(groups: list[Group], config: OptimizerConfig, fused: bool) -> Optimizer:
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=fused)


class MuonWithAdamW(Optimizer):
    """Muon (Jordan et al., 2024) for the groups marked `muon` and AdamW for the others, as one optimizer.

    Muon's update is scaled to the RMS of AdamW's (Liu et al., "Muon is scalable for LLM training", 2025).
    """

    def __init__(self, groups: list[Group], config: OptimizerConfig, fused: bool) -> None:
        matrices = [group for group in groups if group["muon"]]
        others = [group for group in groups if not group["muon"]]
        self.parts: list[Optimizer] = []
        if matrices:  # a linear probe has none
            rate, momentum = config.learning_rate, config.momentum
            self.parts.append(Muon(matrices, lr=rate, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(_adamw(others, config, fused))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for part in self.parts:
            part.step()


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the last layer, and those of lower layers in proportion."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state as `<parameter name>.<state name>`, without copying it."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}.{key}": value.detach()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore the result of `optimizer_tensors`; KeyError for a parameter that the model lacks."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    number = {names[parameter]: i for i, parameter in enumerate(parameters)}
    state: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit(".", 1)
        parameter = parameters[number[name]]
        state[number[name]][key] = sharded_like(tensor, parameter) if tensor.shape == parameter.shape else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Learning rate as a closed formula of the step, without state to save; all lengths in steps.

    ViViT's rule (scenic, `compound_lr_scheduler`) for the cosine: peak x min(1, step / warmup)
    x (1 + cos(pi x progress)) / 2, with progress between warm-up and cool-down from 0 to 1, where it stops here.
    """

    config: ScheduleConfig
    peak: float
    warmup_steps: int
    falling_steps: int
    milestones: tuple[int, ...]

    def __call__(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, the first being 0."""
        if step < self.warmup_steps:
            start = self.config.warmup_start
            return start + (self.peak - start) * (step / self.warmup_steps)
        final = self.config.final_factor
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.falling_steps))
        if self.config.name == "cosine":
            return self.peak * (final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2)
        if self.config.name == "linear":
            return self.peak * (final + (1 - final) * (1 - progress))
        # `constant` has no milestones
        return self.peak * self.config.step_factor ** bisect_right(self.milestones, step)


def peak_learning_rate(optimizer: OptimizerConfig, batch_size: int) -> float:
    """Scale `optimizer.learning_rate` to the batch size over all processes where `optimizer.reference_batch` is set."""
    return optimizer.learning_rate * (batch_size / optimizer.reference_batch if optimizer.reference_batch else 1.0)


def learning_rate_of(
    schedule: ScheduleConfig, peak: float, steps_per_epoch: int, samples_per_epoch: int
) -> LearningRate:
    """Resolve a schedule for data of this size; UserError where a length or milestone lies outside of the run."""

    def steps(text: str, name: str) -> int:
        return parse_length(text, f"schedule.{name}").to_steps(steps_per_epoch, samples_per_epoch)

    total = schedule.total_steps(steps_per_epoch, samples_per_epoch)
    warmup, cooldown = steps(schedule.warmup, "warmup"), steps(schedule.cooldown, "cooldown")
    milestones = [(text, steps(text, "milestones")) for text in schedule.milestones]
    for name, text, fits in (
        ("warmup", schedule.warmup, warmup <= total),
        ("cooldown", schedule.cooldown, warmup + cooldown <= total),
        *(("milestones", text, 0 < milestone < total) for text, milestone in milestones),
    ):
        require(fits, f"schedule.{name}", text, f"what fits into schedule.length, {schedule.length!r} ({total} steps)")
    return LearningRate(
        config=schedule,
        peak=peak,
        warmup_steps=warmup,
        falling_steps=total - warmup - cooldown,
        milestones=tuple(sorted(step for _, step in milestones)),
    )


class WeightAverage:
    """Exponential moving average d * average + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)).

    n is the number of finished steps, as in TensorFlow's `ExponentialMovingAverage(num_updates)`. Averages trained
    parameters and running statistics of norms.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        weights: dict[str, Tensor] = parameters | running_statistics(model)
        self.tensors = {name: tensor.clone() for name, tensor in weights.items()}
        """The average by parameter name."""
        self._weights = [local_part(tensor) for tensor in weights.values()]
        self._averages = [local_part(tensor) for tensor in self.tensors.values()]

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Add the weights after step `num_updates`, the first being 1."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore `tensors`; KeyError for a missing weight."""
        torch._foreach_copy_(self._averages, [local_part(tensors[name]) for name in self.tensors])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Replace the model's weights by the average inside the block."""
        kept = [tensor.clone() for tensor in self._weights]
        with torch.no_grad():
            torch._foreach_copy_(self._weights, self._averages)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, kept)


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point buffers that a checkpoint holds, by name: running means and variances of norms."""
    kept = model.state_dict()
    return {name: b for name, b in model.named_buffers() if b.is_floating_point() and name in kept}
