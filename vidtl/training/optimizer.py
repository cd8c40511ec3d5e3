"""Optimizers: parameter groups, construction, and state as named tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from vidtl.config import OptimizerConfig
from vidtl.models.base import VideoModel
from vidtl.training.sharding import sharded_like

_FUSED_DEVICES = {"cpu", "cuda"}
"""Devices with fused optimizers; on a CPU about 8 times as fast as a loop over the weights."""

Group = dict[str, Any]


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[Group]:
    """Group the trainable parameters by layer, from the input up, and by weight decay.

    Norms, biases and other vectors never decay, nor do the names in `model.no_weight_decay()`, where the model has that
    method (class token, position embeddings). A group's `lr_scale` is layer_decay ** (layers above it); without layer
    decay all layers share their groups. With Muon, matrices between the first and the last layer form separate groups,
    marked `muon`.
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
        group = groups.setdefault(
            (-height, not decays, muon),
            {
                "params": [],
                "weight_decay": config.weight_decay if decays else 0.0,
                "lr_scale": config.layer_decay**height,
                "muon": muon,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Map parameter names to layers, 0 at the input, as in BEiT's and VideoMAE's layer-wise decay."""
    assert isinstance(model, VideoModel), type(model)
    layers = model.layers()
    numbers = {}
    for name, _ in model.named_parameters():
        matching = [
            number
            for number, parts in enumerate(layers)
            if any(name == part or name.startswith(f"{part}.") for part in parts)
        ]
        assert len(matching) == 1, (name, matching)
        numbers[name] = matching[0]
    return numbers


def build_optimizer(model: nn.Module, config: OptimizerConfig, device: torch.device) -> Optimizer:
    """Create the optimizer of a model that is already on `device`."""
    return OPTIMIZERS[config.name](parameter_groups(model, config), config, device.type in _FUSED_DEVICES)


def _sgd(groups: list[Group], config: OptimizerConfig, fused: bool) -> Optimizer:
    return SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=fused)


def _adamw(groups: list[Group], config: OptimizerConfig, fused: bool) -> Optimizer:
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=fused)


class MuonWithAdamW(Optimizer):
    """Muon (Jordan et al., 2024) for the groups marked `muon` and AdamW for the others, as one optimizer.

    Muon's update is scaled to the RMS of AdamW's (Liu et al., "Muon is scalable for LLM training", 2025), so both use
    the same learning rate and weight decay.
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
        """Let both optimizers use this one's groups and state."""
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


OPTIMIZERS: dict[str, Callable[[list[Group], OptimizerConfig, bool], Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": MuonWithAdamW,
}
"""Values of `optimizer.name`: functions of groups, settings, and whether the device has fused kernels."""


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
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit(".", 1)
        parameter = parameters[number[name]]
        has_shape = tensor.shape == parameter.shape
        state.setdefault(number[name], {})[key] = sharded_like(tensor, parameter) if has_shape else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
