"""Exponential moving average of the weights, and the running statistics that it shares with checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidtl.training.sharding import own_part


class WeightAverage:
    """Average of the weights: average = d * average + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)).

    n is the number of updates including this one; it equals the number of finished steps, so a resumed run needs no
    counter. The second term limits the weight of the random initialization, as in TensorFlow's
    `ExponentialMovingAverage(num_updates)`. Averages trained parameters and running statistics of norms.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        weights: dict[str, Tensor] = parameters | running_statistics(model)
        self.tensors = {name: tensor.clone() for name, tensor in weights.items()}
        """The average by parameter name."""
        self._weights = [own_part(tensor) for tensor in weights.values()]
        self._averages = [own_part(tensor) for tensor in self.tensors.values()]

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Add the weights after step `num_updates`, the first being 1."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore `tensors`; KeyError for a missing weight."""
        torch._foreach_copy_(self._averages, [own_part(tensors[name]) for name in self.tensors])

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


def broadcast_from_main(tensors: Sequence[Tensor]) -> None:
    """Copy the main process's values to all processes in one broadcast; every process must call this."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.broadcast(flat, src=0)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(own) for part, own in zip(parts, tensors, strict=True)])
