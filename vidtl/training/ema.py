"""An exponential moving average of the weights (Polyak averaging), which often scores better than the weights do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """average = d x average + (1 - d) x weights after every optimizer step, with d = min(decay, (1 + n) / (10 + n)).

    n is the number of updates, this one included, and equals the number of finished steps, so that a resumed run needs
    no counter of its own. The second term keeps the random start from lasting: it is the rule of TensorFlow's
    `ExponentialMovingAverage(num_updates)`. Averaged are the parameters that are trained and the running means of
    norms; everything else is the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        buffers = {name: b for name, b in model.named_buffers() if b.is_floating_point() and name in model.state_dict()}
        self._weights: dict[str, Tensor] = parameters | buffers
        self.tensors = {name: tensor.clone() for name, tensor in self._weights.items()}
        """The average by parameter name."""

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Take in the weights after step `num_updates` (the first is 1)."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._weights.values()), 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` was; KeyError for a weight that is not among them."""
        torch._foreach_copy_(list(self.tensors.values()), [tensors[name] for name in self.tensors])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model has the average in place of its weights while the block lasts."""
        weights = list(self._weights.values())
        kept = [tensor.clone() for tensor in weights]
        with torch.no_grad():
            torch._foreach_copy_(weights, list(self.tensors.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, kept)
