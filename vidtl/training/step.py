"""One optimizer step, with the same gradient for any split of a batch over processes and micro-batches.

PyTorch averages gradients over processes, so each scales the sum of its losses by processes / number of real samples.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch, Failure, Read
from vidtl.data.gaps import Gap
from vidtl.errors import UserError
from vidtl.runtime.seeding import seed_torch
from vidtl.training import lora, model_setup, optimizer
from vidtl.training.checkpoint_directory import EMA, OPTIMIZER, UNMERGED
from vidtl.training.losses import Loss, balanced_class_weights, find_loss
from vidtl.training.prefetch import DeviceBatches, Stopwatch
from vidtl.training.state import RunFacts, Snapshot, load_snapshot, take_snapshot


class BatchSource(Protocol):
    """Micro-batches in a global order that is a function of the step (`vidtl.data.loader.TrainLoader`)."""

    steps_per_epoch: int
    samples_per_epoch: int
    total_steps: int

    def iterate(self, start_step: int, given_up: Mapping[Read, str]) -> Iterator[ClipBatch]: ...

    def global_count(self, step: int) -> int: ...

    def clips_of_classes(self, steps: int) -> dict[str, int]: ...


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """Data to train on, and how to write the model."""

    loader: BatchSource
    make_input: Callable[[ClipBatch], tuple[Tensor, Tensor]]
    """Map a batch on the device to input_BTCHW, augmented and normalized, and targets_BK, both mixed."""
    num_classes: int
    multi_label: bool
    save_model: Callable[[nn.Module, Path], None]
    """Write `model.safetensors` and `config.json` into a directory."""
    class_counts: Tensor | None = None
    """Training videos of each class [K]; required for `data.balance: loss`."""
    num_videos: int | None = None
    data_sha256: str | None = None
    """See `vidtl.training.state.RunFacts`."""
    fresh: Sequence[str] = ()
    """Parameters without loaded weights; `training.lora` trains them beside the adapters."""
    left_out: Sequence[Gap] = ()
    """Known gaps, which are no videos of this task; for `left_out.jsonl`."""
    draw: Callable[[ClipBatch], NDArray[np.uint8]] | None = None
    """Draw a micro-batch on the device for the trackers: uint8 [height, width, 3]; changes no random state."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Information on model and data for `summary.json`."""

    def facts(self) -> RunFacts:
        """Return the properties of the data that a checkpoint records."""
        return RunFacts(
            num_classes=self.num_classes,
            num_videos=self.num_videos,
            steps_per_epoch=self.loader.steps_per_epoch,
            data_sha256=self.data_sha256,
        )


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Results of one optimizer step in one process; tensors are still on the device."""

    step: int
    """Finished steps, this one included."""
    learning_rate: float
    num_clips: int
    """Samples of the whole batch, without padding."""
    loss: Tensor
    """Share of the mean loss over the whole batch, which is the sum of the shares of all processes."""
    accuracy: Tensor
    """Share, likewise, of the clips whose best class is right; NaN where clips are mixed or have several labels."""
    grad_norm: Tensor
    """Norm of the whole gradient before clipping; equal in all processes."""
    failures: list[Failure]
    data_wait_s: float
    """Time in which the host had no batch to work on."""
    transfers: list[Stopwatch]
    """Transfer of each micro-batch to the device, which overlaps with computation."""
    compute: list[Stopwatch]
    """Computation of each micro-batch, the last with the update of the weights."""


class Engine:
    """A model with its loss, optimizer, precision and processes (one, DDP or FSDP2)."""

    def __init__(
        self, model: nn.Module, config: ExperimentConfig, accelerator: Accelerator, task: TrainingTask
    ) -> None:
        training, loader = config.training, task.loader
        self.model = model.to(accelerator.device)
        """The model with plain parameter names, without DDP or compilation."""
        self.config = config
        self.accelerator = accelerator
        self.task = task
        peak = optimizer.peak_learning_rate(config.optimizer, training.batch_size)
        epoch = loader.steps_per_epoch, loader.samples_per_epoch
        self.learning_rate = optimizer.learning_rate_of(config.schedule, peak, *epoch)
        """Learning rate of each step."""
        class_weights = None
        if config.data.balance == "loss":
            assert task.class_counts is not None
            class_weights = balanced_class_weights(task.class_counts)
        self.loss = Loss(find_loss(training.loss, task.multi_label), training.label_smoothing, class_weights)
        self._has_one_label = not task.multi_label and not config.augmentation.mixes
        self._plain_model = model_setup.without_tensors(self.model)
        # Beside adapters, parts without loaded weights train too.
        adapted = ("head", *task.fresh) if training.lora else ()
        model_setup.freeze_all_but(self.model, (*training.trainable, *adapted))
        if training.lora:
            seed_torch(training.seed, 0)  # apart from the streams of the first weights and of the steps
            lora.add_adapters(self.model, training.lora)
        self._frozen = model_setup.completely_frozen(self.model)
        if training.activation_checkpointing:
            model_setup.checkpoint_activations(self.model)
        sharded = accelerator.distributed_type == DistributedType.FSDP
        self.optimizer = optimizer.build_optimizer(self.model, config.optimizer, accelerator.device, sharded)
        model_setup.compile_model(self.model, training.compile, accelerator.device)
        model_setup.set_fsdp_units(self.model)
        self._wrapped_model, self._wrapped_optimizer = accelerator.prepare(self.model, self.optimizer)
        statistics = optimizer.running_statistics(self.model).values()
        self._shared_statistics = list(statistics) if accelerator.num_processes > 1 else []
        # After `prepare`, which may leave this process only a shard of each weight.
        self.average = optimizer.WeightAverage(self.model, training.ema_decay) if training.ema_decay else None
        self._warm = accelerator.num_processes <= 2
        self.skips_overflows = accelerator.scaler is not None
        """fp16's scaler skips steps with a non-finite gradient, which are then expected."""

    def step(self, step: int, learning_rate: float, batches: DeviceBatches) -> StepReport:
        """Take the next `accumulation_steps` micro-batches and update the weights once. `step` counts from 0."""
        accumulation_steps = self.config.training.accumulation_steps
        num_clips = self.task.loader.global_count(step)
        scale = self.accelerator.num_processes / num_clips
        self._wrapped_model.train()
        for module in self._frozen:
            module.eval()
        batches.waited_s, batches.transfers = 0.0, []
        may_skip = self.config.training.nonfinite == "skip" or self.skips_overflows
        buffers = self._copy_buffers() if may_skip else []
        totals = torch.zeros(2, device=self.accelerator.device)
        failures: list[Failure] = []
        compute: list[Stopwatch] = []
        for micro_batch in range(accumulation_steps):
            batch = batches.take()
            compute.append(Stopwatch(self.accelerator.device))
            failures += batch.failures
            if not self._warm:
                self._warm_up(batch)
            last = micro_batch == accumulation_steps - 1
            with nullcontext() if last else self.accelerator.no_sync(self._wrapped_model):
                totals += self._backward(batch, scale, step, micro_batch)
            if not last:
                compute[-1].stop()
                batches.send_ahead()
        grad_norm, updated = self.update(step, learning_rate, totals[0])
        if not updated:
            self._restore_buffers(buffers)
        compute[-1].stop()
        batches.send_ahead()
        return StepReport(
            step=step + 1,
            learning_rate=learning_rate,
            num_clips=num_clips,
            loss=totals[0] / self.accelerator.num_processes,
            accuracy=totals[1] / num_clips,
            grad_norm=grad_norm,
            failures=failures,
            data_wait_s=batches.waited_s,
            transfers=batches.transfers,
            compute=compute,
        )

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """Yield the model in evaluation mode, with averaged weights where the run keeps them."""
        self.model.eval()
        # Evaluations have batches of every size, and each size would be compiled.
        compiled = self.config.training.compile != "none"
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with self.average.in_model() if self.average else nullcontext(), model_setup.unsharded(self.model), eager:
            yield self.model
        self.model.train()

    def _warm_up(self, batch: ClipBatch) -> None:
        """Run a first pass and drop its gradients, so that a restarted run rounds as an unbroken one.

        In the first pass after a start, DDP exchanges gradients in another order, which three or more processes notice.
        """
        buffers = self._copy_buffers()
        self._backward(batch, 1.0, 0, 0)
        self._wrapped_optimizer.zero_grad(set_to_none=True)
        self._restore_buffers(buffers)
        self._warm = True

    def _copy_buffers(self) -> list[Tensor]:
        """Copy the buffers, which a forward pass may change (running statistics of batch norms)."""
        return [buffer.clone() for buffer in self.model.buffers()]

    def _restore_buffers(self, buffers: list[Tensor]) -> None:
        for buffer, before in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def _backward(self, batch: ClipBatch, scale: float, step: int, micro_batch: int) -> Tensor:
        inputs_BTCHW, targets_BK = self.task.make_input(batch)
        # Dropout and stochastic depth become functions of the position, equal in a resumed run.
        training = self.config.training
        seed_torch(training.seed, step, micro_batch, self.accelerator.process_index)
        with self.accelerator.autocast():  # Accelerate omits it under FSDP2
            options = model_setup.token_counts(self.model)
            logits_nBK = self._wrapped_model(inputs_BTCHW, **options).reshape(-1, *targets_BK.shape)
        distillation = training.elastic_distillation * (step >= self.learning_rate.warmup_steps)
        loss = scale * self.loss.of_each(logits_nBK, targets_BK, batch.weights, distillation)
        self.accelerator.backward(loss)
        right_B = batch.weights * (logits_nBK[0].argmax(dim=1) == targets_BK.argmax(dim=1))
        right = right_B.sum() if self._has_one_label else torch.full_like(loss, math.nan)
        return torch.stack([loss.detach(), right])

    def update(self, step: int, learning_rate: float, loss: Tensor) -> tuple[Tensor, bool]:
        """Clip the gradients and update weights and average; return the norm of the gradient and if they changed."""
        max_norm = self.config.optimizer.clip_norm or math.inf
        grad_norm = model_setup.gathered(self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm))
        optimizer.set_learning_rate(self.optimizer, learning_rate)
        updated = self._is_usable(loss, grad_norm) and self._optimizer_step()
        self._wrapped_optimizer.zero_grad(set_to_none=True)
        if updated and self._shared_statistics:
            model_setup.broadcast_from_main(self._shared_statistics)  # each process has seen other clips
        if updated and self.average:
            self.average.update(step + 1)
        return grad_norm.detach(), updated

    def _is_usable(self, loss: Tensor, grad_norm: Tensor) -> bool:
        """Decide, equally in all processes, whether to update the weights; fp16's scaler skips steps itself."""
        if self.config.training.nonfinite == "stop" or self.skips_overflows:
            return True
        unusable = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
        return not self.accelerator.reduce(unusable.float()).item()

    def _optimizer_step(self) -> bool:
        scaler = self.accelerator.scaler
        scale = scaler.get_scale() if scaler else 0.0
        self._wrapped_optimizer.step()
        # Fused optimizers skip a step internally, visible only in the lower scale.
        return scaler is None or scaler.get_scale() >= scale

    def snapshot(self) -> Snapshot:
        """Gather the contents of a checkpoint in the main process; every process must call this."""
        return take_snapshot(self.model, self.average, self.optimizer, self.accelerator.is_main_process)

    def save(self, directory: Path, snapshot: Snapshot) -> None:
        """Write a snapshot, with the model's settings."""
        self._save_model(snapshot.weights, directory)
        if snapshot.average is not None:
            (directory / EMA).mkdir()
            self._save_model(snapshot.average, directory / EMA)
        save_file({name: tensor.contiguous() for name, tensor in snapshot.optimizer.items()}, directory / OPTIMIZER)

    def _save_model(self, tensors: dict[str, Tensor], directory: Path) -> None:
        self._plain_model.load_state_dict(lora.merged(tensors), assign=True)
        self.task.save_model(self._plain_model, directory)
        if self.config.training.lora:
            save_file(tensors, directory / UNMERGED)

    def load(self, directory: Path, scaler_state: dict[str, Any] | None) -> None:
        """Restore the result of `save`; UserError for the tensors of another model."""
        try:
            load_snapshot(directory, self.model, self.average, self.optimizer)
        except (RuntimeError, KeyError, SafetensorError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"checkpoint {directory} holds another model than the configuration: {first}") from error
        if self.accelerator.scaler and scaler_state:
            self.accelerator.scaler.load_state_dict(scaler_state)
