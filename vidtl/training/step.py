"""One optimizer step: the same gradient for any split of a batch over processes, micro-batches and accumulation.

The gradient is that of (sum over the real samples of the whole batch of their loss) / (number of real samples of the
whole batch). Gradients of processes are averaged by PyTorch, so each process scales its sum by processes / global
count.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch, Failure
from vidtl.errors import UserError
from vidtl.runtime.seeding import seed_torch
from vidtl.training.acceleration import checkpoint_activations, compile_model
from vidtl.training.checkpoint import EMA, MODEL, OPTIMIZER
from vidtl.training.ema import WeightAverage
from vidtl.training.frozen import freeze_all_but
from vidtl.training.losses import loss_sum
from vidtl.training.optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors, set_learning_rate
from vidtl.training.prefetch import DeviceBatches, Stopwatch
from vidtl.training.schedule import learning_rate_of


class BatchSource(Protocol):
    """Micro-batches in a global order that is a function of the step (`vidtl.data.loader.TrainLoader`)."""

    steps_per_epoch: int
    samples_per_epoch: int
    total_steps: int

    def iterate(self, start_step: int) -> Iterator[ClipBatch]: ...

    def global_count(self, step: int) -> int: ...

    def clips_of_classes(self, steps: int) -> dict[str, int]: ...


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What a model is trained on, and how it is written down."""

    loader: BatchSource
    make_input: Callable[[ClipBatch], tuple[Tensor, Tensor]]
    """A batch on the device to input_BTCHW, augmented and normalised, and targets_BK; both mixed where clips are."""
    num_classes: int
    multi_label: bool
    save_model: Callable[[nn.Module, Path], None]
    """Writes `model.safetensors` and `config.json` into a directory."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one process knows about one optimizer step; tensors are still on the device."""

    step: int
    """Finished steps, this one included."""
    learning_rate: float
    num_clips: int
    """Real samples of the whole batch."""
    loss: Tensor
    """This process's share of the mean loss over the whole batch; the shares of all processes add up to it."""
    grad_norm: Tensor
    """Norm of the whole gradient before clipping; the same in all processes."""
    failures: list[Failure]
    data_wait_s: float
    """Time in which the host had no batch to work on."""
    transfers: list[Stopwatch]
    """Of the batches sent to the device in this step, most of it beside the computation."""
    compute: Stopwatch
    """All of the step but the wait; on a GPU the device's time."""


class Engine:
    """A model with its optimizer, precision and processes."""

    def __init__(
        self, model: nn.Module, config: ExperimentConfig, accelerator: Accelerator, task: TrainingTask
    ) -> None:
        self.model = model.to(accelerator.device)
        """The model as it was built: plain parameter names, whatever wraps it in training."""
        self.config = config
        self.accelerator = accelerator
        self.task = task
        self.learning_rate = learning_rate_of(config, task.loader.steps_per_epoch, task.loader.samples_per_epoch)
        """Of each step."""
        self._frozen = freeze_all_but(self.model, config.training.trainable)
        if config.training.activation_checkpointing:
            checkpoint_activations(self.model)
        self.optimizer = build_optimizer(self.model, config.optimizer, accelerator.device)
        self.average = WeightAverage(self.model, config.training.ema_decay) if config.training.ema_decay else None
        compile_model(self.model, config.training.compile, accelerator.device)
        self._wrapped_model, self._wrapped_optimizer = accelerator.prepare(self.model, self.optimizer)
        self._warm = accelerator.num_processes < 3

    def step(self, step: int, learning_rate: float, batches: DeviceBatches) -> StepReport:
        """Take the next `accumulation_steps` micro-batches and change the weights once. `step` counts from 0."""
        accumulation_steps = self.config.training.accumulation_steps
        num_clips = self.task.loader.global_count(step)
        scale = self.accelerator.num_processes / num_clips
        self._set_training_mode()
        batches.waited_s = 0.0
        batches.transfers = []
        loss = torch.zeros((), device=self.accelerator.device)
        failures: list[Failure] = []
        for micro_batch in range(accumulation_steps):
            batch = batches.take()
            if micro_batch == 0:
                compute = Stopwatch(self.accelerator.device)
            failures += batch.failures
            if not self._warm:
                self._warm_up(batch)
            last = micro_batch == accumulation_steps - 1
            with nullcontext() if last else self.accelerator.no_sync(self._wrapped_model):
                loss += self._backward(batch, scale, step, micro_batch)
            if not last:
                batches.send_ahead()
        grad_norm = self._update(learning_rate)
        if self.average:
            self.average.update(step + 1)
        compute.stop()
        batches.send_ahead()
        return StepReport(
            step=step + 1,
            learning_rate=learning_rate,
            num_clips=num_clips,
            loss=loss / self.accelerator.num_processes,
            grad_norm=grad_norm,
            failures=failures,
            data_wait_s=batches.waited_s,
            transfers=batches.transfers,
            compute=compute,
        )

    def _set_training_mode(self) -> None:
        self._wrapped_model.train()
        for module in self._frozen:
            module.eval()

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The model in evaluation mode, with averaged weights where the run keeps them; training goes on as before."""
        self.model.eval()
        # Batches of every size come by in an evaluation, and each would be compiled.
        compiled = self.config.training.compile != "none"
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with self.average.in_model() if self.average else nullcontext(), eager:
            yield self.model
        self.model.train()

    def _warm_up(self, batch: ClipBatch) -> None:
        """A first pass whose gradients are thrown away.

        PyTorch lays gradients out for their exchange in one order in the first pass after a start and in another order
        ever after, and the order decides how the sums of three and more processes are rounded. With this pass, the
        first step after a restart is rounded as it would have been without the restart.
        """
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self._backward(batch, 1.0, 0, 0)
        self._wrapped_optimizer.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)
        self._warm = True

    def _backward(self, batch: ClipBatch, scale: float, step: int, micro_batch: int) -> Tensor:
        training = self.config.training
        inputs_BTCHW, targets_BK = self.task.make_input(batch)
        # Dropout and stochastic depth become functions of the position, so that a resumed run draws the same ones.
        seed_torch(training.seed, step, micro_batch, self.accelerator.process_index)
        logits_BK = self._wrapped_model(inputs_BTCHW)
        loss = scale * loss_sum(logits_BK, targets_BK, batch.weights, self.task.multi_label, training.label_smoothing)
        self.accelerator.backward(loss)
        return loss.detach()

    def _update(self, learning_rate: float) -> Tensor:
        clip_norm = self.config.optimizer.clip_norm or math.inf
        grad_norm: Tensor = self.accelerator.clip_grad_norm_(self.model.parameters(), clip_norm)
        set_learning_rate(self.optimizer, learning_rate)
        self._wrapped_optimizer.step()
        self._wrapped_optimizer.zero_grad(set_to_none=True)
        return grad_norm.detach()

    @property
    def skips_overflows(self) -> bool:
        """Whether a gradient that is not finite is normal: fp16 then skips the step and lowers its scale."""
        return self.accelerator.scaler is not None

    def scaler_state(self) -> dict[str, Any] | None:
        """fp16's loss scale and its counters; plain numbers."""
        return self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None

    def state_bytes(self) -> int:
        """Size of all tensors that `save` writes."""
        values = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [value for value in (*self.model.state_dict().values(), *values) if isinstance(value, Tensor)]
        if self.average:
            tensors += self.model.state_dict().values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def save(self, directory: Path) -> None:
        """Write the model's and the optimizer's tensors under the model's own parameter names."""
        self.task.save_model(self.model, directory)
        if self.average:
            (directory / EMA).mkdir()
            with self.average.in_model():
                self.task.save_model(self.model, directory / EMA)
        save_file(optimizer_tensors(self.optimizer, self.model), directory / OPTIMIZER)

    def load(self, directory: Path, scaler_state: dict[str, Any] | None) -> None:
        """Put back what `save` wrote.

        Raises:
            UserError: the files hold another model's tensors.
        """
        try:
            load_model(self.model, directory / MODEL)
            load_optimizer_tensors(self.optimizer, self.model, load_file(directory / OPTIMIZER))
            if self.average:
                self.average.load(load_file(directory / EMA / MODEL))
        except (RuntimeError, KeyError, SafetensorError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {directory} holds another model than the configuration builds: {first}"
            ) from error
        if self.accelerator.scaler is not None and scaler_state is not None:
            self.accelerator.scaler.load_state_dict(scaler_state)
