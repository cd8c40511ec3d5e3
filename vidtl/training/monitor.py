"""Checks and records of finished steps: values reduced over processes, log lines, and reasons to end a run."""

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from vidtl.config import TrainingConfig
from vidtl.errors import UserError
from vidtl.runtime.logging import MetricsLog
from vidtl.runtime.progress import Task
from vidtl.runtime.signals import StopSignals
from vidtl.runtime.watchdog import Activity, activity
from vidtl.training.failures import UnreadableVideos
from vidtl.training.state import TrainingState
from vidtl.training.step import StepReport

MAX_NONFINITE_STEPS = 10
"""Skipped steps in a row after which a run ends: single outliers are skipped, divergence is not."""

_log = logging.getLogger(__name__)


class _Pending(NamedTuple):
    """A step whose numbers are being copied to the host."""

    report: StepReport
    numbers: Tensor
    """float64 [processes, 4]: share of the loss, gradient norm, unreadable videos, stop signal."""
    arrived: torch.cuda.Event | None


@dataclass
class _Speed:
    """Sums since the last log line, in clips and seconds."""

    clips: int = 0
    total: float = 0.0
    waiting: float = 0.0
    transfer: float = 0.0
    compute: float = 0.0


class Monitor:
    """Counts, checks and logs each step, and updates the state that checkpoints hold."""

    def __init__(
        self,
        training: TrainingConfig,
        accelerator: Accelerator,
        state: TrainingState,
        unreadable: UnreadableVideos,
        signals: StopSignals,
        log: MetricsLog | None,
        *,
        steps_per_epoch: int,
        total_steps: int,
        skips_overflows: bool,
    ) -> None:
        self.training = training
        self.accelerator = accelerator
        self.state = state
        self.unreadable = unreadable
        self.signals = signals
        self.log = log
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.skips_overflows = skips_overflows
        self.stop_signum = 0
        """Stop signal that any process has received, equal in all processes."""
        # On a GPU, the numbers of a step are read while the next one computes: the device never waits for the host.
        self._lag = 1 if accelerator.device.type == "cuda" else 0
        self._pending: deque[_Pending] = deque()
        self._speed = _Speed()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Exclude the time since the last step (a checkpoint, an evaluation) from the speed."""
        self._last_s = time.perf_counter()

    def add(self, report: StepReport, task: Task) -> None:
        """Add a step that is computed or, on a GPU, being computed. All processes call this."""
        device = report.loss.device
        with activity(Activity.REDUCING):
            # Created on the host: creating a tensor on a GPU from numbers would synchronize.
            own = torch.tensor([len(report.failures), self.signals.signum], dtype=torch.float64)
            shares = torch.stack([report.loss, report.grad_norm]).double()
            own = torch.cat([shares, own.to(device, non_blocking=True)])
            numbers: Tensor = self.accelerator.gather(own[None]).to("cpu", non_blocking=True)
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
            shares, norms, failures, signums = numbers.T.tolist()
            self.state.step = report.step
            self.stop_signum = self.stop_signum or int(max(signums))
            self.unreadable.add(self.state, report.num_clips, int(sum(failures)), report.failures)
            self._check_finite(report.step, sum(shares), norms[0])
            self._count(report, sum(shares))
            task.update(report.step, self._figures(report))
            if report.step % self.training.log_every_steps == 0 or report.step == self.total_steps:
                self._write_line(report, norms[0])

    def _check_finite(self, step: int, loss: float, grad_norm: float) -> None:
        """Count a skipped step, or end the run; every process decides from the same numbers."""
        name, value = ("loss", loss) if not math.isfinite(loss) else ("norm of the gradient", grad_norm)
        if math.isfinite(value) or (name != "loss" and self.skips_overflows):
            self.state.nonfinite_in_a_row = 0
            return
        self.state.nonfinite_steps += 1
        self.state.nonfinite_in_a_row += 1
        if self.training.nonfinite == "skip" and self.state.nonfinite_in_a_row <= MAX_NONFINITE_STEPS:
            if self.log:
                _log.warning("step %d is skipped: the %s is %s; %d skipped so far", step, name, value,
                             self.state.nonfinite_steps)  # fmt: skip
            return
        before = self.state.nonfinite_in_a_row - 1
        also = f" and the {before} before it" if before else ""
        raise UserError(
            f"the {name} is {value} in step {step}{also}; earlier checkpoints "
            "are intact; try a lower optimizer.learning_rate, a longer schedule.warmup, or training.nonfinite skip for "
            "single steps"
        )

    def _count(self, report: StepReport, loss: float) -> None:
        now = time.perf_counter()
        self._speed.total += now - self._last_s
        self._last_s = now
        self._speed.clips += report.num_clips
        self._speed.waiting += report.data_wait_s
        self._speed.transfer += sum(transfer.seconds() for transfer in report.transfers)
        self._speed.compute += sum(work.seconds() for work in report.compute)
        if math.isfinite(loss):
            self.state.recent_losses.append(loss)

    def _figures(self, report: StepReport) -> dict[str, str]:
        return {
            "loss": f"{self._mean_loss():.4g}",
            "lr": f"{report.learning_rate:.3g}",
            "clips/s": f"{self._speed.clips / self._speed.total:.3g}",
            "data wait": f"{self._speed.waiting / self._speed.total:.0%}",
        }

    def _mean_loss(self) -> float:
        losses = self.state.recent_losses
        return math.fsum(losses) / len(losses) if losses else math.nan

    def _write_line(self, report: StepReport, grad_norm: float) -> None:
        speed = self._speed
        if self.log:
            numbers = {
                "loss": self._mean_loss(),
                "learning_rate": report.learning_rate,
                "grad_norm": grad_norm,
                "clips_per_s": speed.clips / speed.total,
                "data_wait_share": speed.waiting / speed.total,
                "transfer_share": speed.transfer / speed.total,
                "compute_share": speed.compute / speed.total,
            }
            if self.state.nonfinite_steps:
                numbers["nonfinite_steps"] = self.state.nonfinite_steps
            self.log.write(report.step, report.step / self.steps_per_epoch, numbers)
        self.state.recent_losses.clear()
        self._speed = _Speed()
