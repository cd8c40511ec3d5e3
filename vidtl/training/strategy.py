"""How the processes of a run share a step: through Accelerate (one process, DDP, FSDP2) or DeepSpeed (ZeRO 1 and 2)."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from vidtl.runtime.zero import zero_stage
from vidtl.training.deepspeed import ZeroStrategy
from vidtl.training.optimizer import load_optimizer_tensors, optimizer_tensors
from vidtl.training.sharding import name_units, whole


class Strategy(Protocol):
    """Gradients of all processes become one, and change the weights of all."""

    model: nn.Module
    """The model as training calls it."""
    needs_warm_up: bool
    """Whether the first pass after a start rounds otherwise than those after it."""

    def pass_of(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a micro-batch; with the `last` of a step the gradients are whole."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`."""

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradient down to `max_norm`, at the latest in `step`; its norm before that."""

    def step(self) -> bool:
        """Change the weights, unless the loss scale says not to; whether they have changed."""

    def drop_gradients(self) -> None:
        """Make room for the next step, whether the weights have changed or not."""

    def optimizer_tensors(self) -> Iterable[tuple[str, Tensor]]:
        """The optimizer's state by `<parameter name>.<state name>`; every process must go through all of it."""

    def load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `optimizer_tensors` gave, after the model's weights; KeyError for another model's."""


class AccelerateStrategy:
    """Accelerate's: one process, replicas (DDP), or shards (FSDP2)."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> None:
        name_units(model)
        self._plain_model, self._plain_optimizer, self._accelerator = model, optimizer, accelerator
        self.model, self._optimizer = accelerator.prepare(model, optimizer)
        # DDP lays gradients out in one order in the first pass and in another ever after; see `Engine`.
        self.needs_warm_up = accelerator.num_processes > 2

    def pass_of(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self._accelerator.no_sync(self.model)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def clip(self, max_norm: float) -> Tensor:
        return whole(self._accelerator.clip_grad_norm_(self._plain_model.parameters(), max_norm))

    def step(self) -> bool:
        scaler = self._accelerator.scaler
        scale = scaler.get_scale() if scaler is not None else 0.0
        self._optimizer.step()
        # Fused optimizers are called for every step and leave one out by themselves, which only the lower scale tells.
        return scaler is None or scaler.get_scale() >= scale

    def drop_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def optimizer_tensors(self) -> Iterable[tuple[str, Tensor]]:
        return optimizer_tensors(self._plain_optimizer, self._plain_model).items()

    def load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        load_optimizer_tensors(self._plain_optimizer, self._plain_model, tensors)


def make_strategy(model: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> Strategy:
    """What the launcher's configuration asks for; it may move the weights to other memory and share them out.

    Raises UserError for an optimizer that DeepSpeed cannot share out.
    """
    if stage := zero_stage(accelerator):
        return ZeroStrategy(model, optimizer, accelerator, stage)
    return AccelerateStrategy(model, optimizer, accelerator)
