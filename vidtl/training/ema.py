"""An exponential moving average of the weights (Polyak averaging), which often scores better than the weights do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidtl.training.running_statistics import running_statistics
from vidtl.training.sharding import own_part


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
        weights: dict[str, Tensor] = parameters | running_statistics(model)
        self.tensors = {name: tensor.clone() for name, tensor in weights.items()}
        """The average by parameter name."""
        self._weights = [own_part(tensor) for tensor in weights.values()]
        self._averages = [own_part(tensor) for tensor in self.tensors.values()]

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Take in the weights after step `num_updates` (the first is 1)."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` was; KeyError for a weight that is not among them."""
        torch._foreach_copy_(self._averages, [own_part(tensors[name]) for name in self.tensors])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model has the average in place of its weights while the block lasts."""
        kept = [tensor.clone() for tensor in self._weights]
        with torch.no_grad():
            torch._foreach_copy_(self._weights, self._averages)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, kept)
