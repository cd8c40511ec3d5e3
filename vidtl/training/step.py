"""One optimizer step: the same gradient for any split of a batch over processes, micro-batches and accumulation.

The gradient is that of (sum over the real samples of the whole batch of their loss) / (number of real samples of the
whole batch). Gradients of processes are averaged by PyTorch, so each process scales its sum by processes / global
count.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch, Failure
from vidtl.errors import UserError
from vidtl.runtime.seeding import seed_torch
from vidtl.training.acceleration import checkpoint_activations, compile_model
from vidtl.training.checkpoint import EMA
from vidtl.training.ema import WeightAverage
from vidtl.training.frozen import freeze_all_but
from vidtl.training.losses import loss_sum
from vidtl.training.optimizer import build_optimizer, set_learning_rate
from vidtl.training.prefetch import DeviceBatches, Stopwatch
from vidtl.training.running_statistics import running_statistics, take_from_first_process
from vidtl.training.schedule import learning_rate_of
from vidtl.training.sharding import unsharded, without_tensors
from vidtl.training.snapshot import Snapshot, load_snapshot, save_optimizer, take_snapshot
from vidtl.training.strategy import make_strategy


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
    num_videos: int | None = None
    data_sha256: str | None = None
    """What a resumed run must find again; see `vidtl.training.state.RunFacts`."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What `summary.json` is to say of the model and the data; for people."""


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
    """Of each micro-batch on its way to the device, beside the computation of the one before."""
    compute: list[Stopwatch]
    """Of each micro-batch, the last with the change of the weights; on a GPU the device's time."""


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
        self._plain_model = without_tensors(self.model)
        self._frozen = freeze_all_but(self.model, config.training.trainable)
        if config.training.activation_checkpointing:
            checkpoint_activations(self.model)
        self.optimizer = build_optimizer(self.model, config.optimizer, accelerator.device)
        compile_model(self.model, config.training.compile, accelerator.device)
        self.strategy = make_strategy(self.model, self.optimizer, accelerator)
        several = accelerator.num_processes > 1
        self._running = list(running_statistics(self.model).values()) if several else []
        # After the strategy, which may leave this process only a part of each weight.
        self.average = WeightAverage(self.model, config.training.ema_decay) if config.training.ema_decay else None
        self._warm = not self.strategy.needs_warm_up

    def step(self, step: int, learning_rate: float, batches: DeviceBatches) -> StepReport:
        """Take the next `accumulation_steps` micro-batches and change the weights once. `step` counts from 0."""
        accumulation_steps = self.config.training.accumulation_steps
        num_clips = self.task.loader.global_count(step)
        scale = self.accelerator.num_processes / num_clips
        self._set_training_mode()
        batches.waited_s = 0.0
        batches.transfers = []
        may_skip = self.config.training.nonfinite == "skip" or self.skips_overflows
        buffers = self._copy_buffers() if may_skip else []
        loss = torch.zeros((), device=self.accelerator.device)
        failures: list[Failure] = []
        compute: list[Stopwatch] = []
        for micro_batch in range(accumulation_steps):
            batch = batches.take()
            compute.append(Stopwatch(self.accelerator.device))
            failures += batch.failures
            if not self._warm:
                self._warm_up(batch)
            last = micro_batch == accumulation_steps - 1
            with self.strategy.pass_of(last=last):
                loss += self._backward(batch, scale, step, micro_batch)
            if not last:
                compute[-1].stop()
                batches.send_ahead()
        grad_norm, updated = self.update(step, learning_rate, loss)
        if not updated:
            _restore(buffers)
        compute[-1].stop()
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
        self.strategy.model.train()
        for module in self._frozen:
            module.eval()

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The model in evaluation mode, with averaged weights where the run keeps them; training goes on as before."""
        self.model.eval()
        # Batches of every size come by in an evaluation, and each would be compiled.
        compiled = self.config.training.compile != "none"
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with self.average.in_model() if self.average else nullcontext(), unsharded(self.model), eager:
            yield self.model
        self.model.train()

    def _warm_up(self, batch: ClipBatch) -> None:
        """A first pass whose gradients are thrown away.

        PyTorch lays gradients out for their exchange in one order in the first pass after a start and in another order
        ever after, and the order decides how the sums of three and more processes are rounded. With this pass, the
        first step after a restart is rounded as it would have been without the restart.
        """
        buffers = self._copy_buffers()
        self._backward(batch, 1.0, 0, 0)
        self.strategy.drop_gradients()
        _restore(buffers)
        self._warm = True

    def _copy_buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Buffers with their values, which a forward pass changes (the running statistics of batch norms)."""
        return [(buffer, buffer.clone()) for buffer in self.model.buffers()]

    def _backward(self, batch: ClipBatch, scale: float, step: int, micro_batch: int) -> Tensor:
        training = self.config.training
        inputs_BTCHW, targets_BK = self.task.make_input(batch)
        # Dropout and stochastic depth become functions of the position, so that a resumed run draws the same ones.
        seed_torch(training.seed, step, micro_batch, self.accelerator.process_index)
        with self.accelerator.autocast():  # which Accelerate leaves out where processes share the model (FSDP2)
            logits_BK = self.strategy.model(inputs_BTCHW)
        loss = scale * loss_sum(logits_BK, targets_BK, batch.weights, self.task.multi_label, training.label_smoothing)
        self.strategy.backward(loss)
        return loss.detach()

    def update(self, step: int, learning_rate: float, loss: Tensor) -> tuple[Tensor, bool]:
        """Clip the gradients that are there, change the weights and then their average.

        Returns:
            The norm of the gradient, and whether the weights have changed.
        """
        clip_norm = self.config.optimizer.clip_norm or math.inf
        grad_norm = self.strategy.clip(clip_norm)
        set_learning_rate(self.optimizer, learning_rate)
        updated = self._is_usable(loss, grad_norm)
        if updated:
            updated = self.strategy.step()
        self.strategy.drop_gradients()
        if updated and self._running:
            take_from_first_process(self._running)  # each process has seen other clips
        if updated and self.average:
            self.average.update(step + 1)
        return grad_norm.detach(), updated

    def _is_usable(self, loss: Tensor, grad_norm: Tensor) -> bool:
        """Whether a step is to change the weights: the same in all processes. fp16's scaler decides for itself."""
        if self.config.training.nonfinite == "stop" or self.skips_overflows:
            return True
        unusable = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
        return not self.accelerator.reduce(unusable.float()).item()

    @property
    def skips_overflows(self) -> bool:
        """Whether a gradient that is not finite is normal: fp16 then skips the step and lowers its scale."""
        return self.accelerator.scaler is not None

    def scaler_state(self) -> dict[str, Any] | None:
        """fp16's loss scale and its counters; plain numbers."""
        return self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None

    def snapshot(self) -> Snapshot:
        """What a checkpoint is made of, in the first process; every process calls this."""
        optimizer = self.strategy.optimizer_tensors()
        return take_snapshot(self.model, self.average, optimizer, self.accelerator.is_main_process)

    def save(self, directory: Path, snapshot: Snapshot) -> None:
        """Write a snapshot, the model with its settings."""
        self._save_model(snapshot.weights, directory)
        if snapshot.average is not None:
            (directory / EMA).mkdir()
            self._save_model(snapshot.average, directory / EMA)
        save_optimizer(snapshot, directory)

    def _save_model(self, tensors: dict[str, Tensor], directory: Path) -> None:
        self._plain_model.load_state_dict(tensors, assign=True)
        self.task.save_model(self._plain_model, directory)

    def load(self, directory: Path, scaler_state: dict[str, Any] | None) -> None:
        """Put back what `save` wrote.

        Raises:
            UserError: the files hold another model's tensors.
        """
        try:
            load_snapshot(directory, self.model, self.average, self.strategy.load_optimizer)
        except (RuntimeError, KeyError, SafetensorError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"checkpoint {directory} holds another model than the configuration builds: {first}"
            ) from error
        if self.accelerator.scaler is not None and scaler_state is not None:
            self.accelerator.scaler.load_state_dict(scaler_state)


def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, before in buffers:
        buffer.copy_(before)
