"""Frozen parameters, for linear probes and fine-tuning of the last layers."""

from collections.abc import Sequence

from torch import nn

from vidtl.errors import UserError, did_you_mean
from vidtl.models.base import VideoModel


def freeze_all_but(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Freeze every parameter outside of `parts`; empty `parts` freeze nothing.

    `head` is the classifier of any model. Frozen parameters have no gradient exchange and no optimizer state, and
    layers below the lowest trained one store no activations.

    Returns:
        The largest modules that are frozen completely: keep them in evaluation mode, without dropout and with fixed
        running statistics.

    Raises:
        UserError: the model lacks a name, or no parameter is left to train.
    """
    if not parts:
        return []
    names = [name for name, _ in model.named_parameters()]
    known = sorted({".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)})
    trained = []
    for part in parts:
        name = model.classifier()[0] if part == "head" and isinstance(model, VideoModel) else part
        if name not in known:
            raise UserError(
                f"training.trainable: the model has no parameter or module {part!r}; {did_you_mean(part, known)}"
            )
        trained.append(name)
    for name, parameter in model.named_parameters():
        if not any(name == part or name.startswith(f"{part}.") for part in trained):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"training.trainable is {list(parts)}; allowed: parts with trainable parameters")
    return _completely_frozen(model)


def _completely_frozen(module: nn.Module) -> list[nn.Module]:
    gradients = [parameter.requires_grad for parameter in module.parameters()]
    if gradients and not any(gradients):
        return [module]
    return [part for child in module.children() for part in _completely_frozen(child)]
