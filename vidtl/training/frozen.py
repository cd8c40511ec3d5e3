"""Training parts of a model: linear probes, and fine-tuning of the last layers only."""

from collections.abc import Sequence

from torch import nn

from vidtl.errors import UserError, did_you_mean
from vidtl.models.base import VideoModel


def freeze_all_but(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Take the gradient from every parameter outside of `parts`; no parts freeze nothing.

    `head` is the classifier of any model. Frozen parameters take part in no gradient exchange and have no optimizer
    state, and what lies below them stores nothing for a backward pass.

    Returns:
        The largest modules that are frozen as a whole: to be kept in evaluation mode, without dropout and with norms
        that do not move.

    Raises:
        UserError: a name that the model does not have, or only parameters that are never trained.
    """
    if not parts:
        return []
    names = [name for name, _ in model.named_parameters()]
    known = sorted({".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)})
    trained = []
    for part in parts:
        name = model.classifier()[0] if part == "head" and isinstance(model, VideoModel) else part
        if name not in known:
            raise UserError(f"training.trainable has {part!r}, which the model has not; {did_you_mean(part, known)}")
        trained.append(name)
    for name, parameter in model.named_parameters():
        if not any(name == part or name.startswith(f"{part}.") for part in trained):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"training.trainable is {list(parts)}; allowed: parts with parameters that have a gradient")
    return _frozen_as_a_whole(model)


def _frozen_as_a_whole(module: nn.Module) -> list[nn.Module]:
    gradients = [parameter.requires_grad for parameter in module.parameters()]
    if gradients and not any(gradients):
        return [module]
    return [part for child in module.children() for part in _frozen_as_a_whole(child)]
