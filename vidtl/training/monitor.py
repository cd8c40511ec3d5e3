"""Looks at finished steps: what all processes agree on, what is logged, and what ends a run."""

import logging
import math
import time
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from vidtl.errors import UserError
from vidtl.runtime.logging import MetricsLog
from vidtl.runtime.progress import Task
from vidtl.runtime.signals import StopSignals
from vidtl.training.failures import UnreadableVideos
from vidtl.training.state import TrainingState
from vidtl.training.step import Engine, StepReport

_log = logging.getLogger(__name__)


class _Pending(NamedTuple):
    """A step whose numbers are on their way to the host."""

    report: StepReport
    numbers: Tensor
    """float64 [processes, 5]: share of the loss, gradient norm, unreadable videos, stop signal, time for a
    checkpoint."""
    arrived: torch.cuda.Event | None


class Monitor:
    """Counts, checks and logs each step, and updates the state that goes into checkpoints."""

    def __init__(
        self,
        engine: Engine,
        state: TrainingState,
        unreadable: UnreadableVideos,
        signals: StopSignals,
        log: MetricsLog | None,
    ) -> None:
        self.engine = engine
        self.state = state
        self.unreadable = unreadable
        self.signals = signals
        self.log = log
        self.stop_signum = 0
        """A signal that any process has received, once all processes know of it."""
        self.checkpoint_wanted = False
        """Whether the first process's clock asks for a checkpoint, once all processes know of it."""
        self._checkpoint_s = time.monotonic()
        # On a GPU a step is looked at while the next one computes, so that the device never waits for the host.
        self._lag = 1 if engine.accelerator.device.type == "cuda" else 0
        self._pending: deque[_Pending] = deque()
        self._clips, self._seconds, self._wait_s = 0, 0.0, 0.0
        self._transfer_s, self._compute_s = 0.0, 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave the time since the last step (a checkpoint, an evaluation) out of the figures for speed."""
        self._last_s = time.perf_counter()

    def checkpoint_written(self) -> None:
        """The period in minutes begins again."""
        self.checkpoint_wanted = False
        self._checkpoint_s = time.monotonic()
        self.restart_clock()

    def _is_time_to_save(self) -> bool:
        minutes = self.engine.config.training.checkpoint_every_minutes
        is_main = self.engine.accelerator.is_main_process  # clocks of several processes would differ
        return is_main and 0 < minutes * 60 <= time.monotonic() - self._checkpoint_s

    def watch(self, report: StepReport, task: Task) -> None:
        """Take note of a step that has been computed or, on a GPU, is being computed. All processes call this."""
        device = report.loss.device
        # Made on the host: a tensor made on a GPU from numbers waits for all that the GPU has been asked to do.
        own = torch.tensor([len(report.failures), self.signals.signum, self._is_time_to_save()], dtype=torch.float64)
        shares = torch.stack([report.loss, report.grad_norm]).double()
        own = torch.cat([shares, own.to(device, non_blocking=True)])
        numbers: Tensor = self.engine.accelerator.gather(own[None]).to("cpu", non_blocking=True)
        arrived = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if arrived:
            arrived.record()
        self._pending.append(_Pending(report, numbers, arrived))
        self._settle(self._lag, task)

    def settle(self, task: Task) -> None:
        """Wait for every step so far; afterwards the state is that of the weights."""
        self._settle(0, task)

    def _settle(self, leave: int, task: Task) -> None:
        while len(self._pending) > leave:
            report, numbers, arrived = self._pending.popleft()
            if arrived:
                arrived.synchronize()
            shares, norms, failures, signums, wanted = numbers.T.tolist()
            self.state.step = report.step
            self.stop_signum = self.stop_signum or int(max(signums))
            self.unreadable.add(self.state, report.num_clips, int(sum(failures)), report.failures)
            self.checkpoint_wanted = self.checkpoint_wanted or max(wanted) > 0
            self._check_finite(report.step, sum(shares), norms[0])
            self._count(report, sum(shares))
            task.update(report.step, self._figures(report))
            if self._line_due(report.step):
                self._write_line(report, norms[0])

    def _check_finite(self, step: int, loss: float, grad_norm: float) -> None:
        """Count a step that was left out, or end the run; every process decides from the same numbers."""
        name, value = ("loss", loss) if not math.isfinite(loss) else ("norm of the gradient", grad_norm)
        if math.isfinite(value) or (name != "loss" and self.engine.skips_overflows):
            self.state.nonfinite_in_a_row = 0
            return
        training = self.engine.config.training
        self.state.nonfinite_steps += 1
        self.state.nonfinite_in_a_row += 1
        if training.nonfinite == "stop":
            told = f"in step {step}"
        elif self.state.nonfinite_in_a_row > training.max_nonfinite_steps:
            told = f"in step {step}, as in the {self.state.nonfinite_in_a_row - 1} before it"
        else:
            if self.log:
                _log.warning("step %d is left out: the %s is %s; %d left out so far", step, name, value,
                             self.state.nonfinite_steps)  # fmt: skip
            return
        raise UserError(
            f"the {name} is {value} {told}; checkpoints before it are intact; a lower optimizer.learning_rate "
            f"(now {self.engine.config.optimizer.learning_rate}) or a longer schedule.warmup may help, and "
            "training.nonfinite skip leaves out single steps"
        )

    def _count(self, report: StepReport, loss: float) -> None:
        now = time.perf_counter()
        self._seconds += now - self._last_s
        self._last_s = now
        self._clips += report.num_clips
        self._wait_s += report.data_wait_s
        self._transfer_s += sum(transfer.seconds() for transfer in report.transfers)
        self._compute_s += sum(work.seconds() for work in report.compute)
        if math.isfinite(loss):
            self.state.recent_losses.append(loss)

    def _figures(self, report: StepReport) -> dict[str, str]:
        return {
            "loss": f"{self._mean_loss():.4g}",
            "lr": f"{report.learning_rate:.3g}",
            "clips/s": f"{self._clips / self._seconds:.3g}",
            "data wait": f"{self._wait_s / self._seconds:.0%}",
        }

    def _mean_loss(self) -> float:
        losses = self.state.recent_losses
        return math.fsum(losses) / len(losses) if losses else math.nan

    def _line_due(self, step: int) -> bool:
        every = self.engine.config.training.log_every_steps
        return step % every == 0 or step == self.engine.task.loader.total_steps

    def _write_line(self, report: StepReport, grad_norm: float) -> None:
        if self.log:
            numbers = {
                "loss": self._mean_loss(),
                "learning_rate": report.learning_rate,
                "grad_norm": grad_norm,
                "clips_per_s": self._clips / self._seconds,
                "data_wait_share": self._wait_s / self._seconds,
                "transfer_share": self._transfer_s / self._seconds,
                "compute_share": self._compute_s / self._seconds,
            }
            if self.state.nonfinite_steps:
                numbers["nonfinite_steps"] = self.state.nonfinite_steps
            self.log.write(report.step, report.step / self.engine.task.loader.steps_per_epoch, numbers)
        self.state.recent_losses.clear()
        self._clips, self._seconds, self._wait_s = 0, 0.0, 0.0
        self._transfer_s, self._compute_s = 0.0, 0.0
