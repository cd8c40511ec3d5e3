"""Checks and records of finished steps: values reduced over processes, log lines, and reasons to end a run."""

import json
import logging
import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from vidtl.config import TrainingConfig
from vidtl.data.batch import Failure, Read
from vidtl.errors import UserError
from vidtl.runtime.files import user_error_if_not_written
from vidtl.runtime.logging import MetricsLog, drop_lines_beyond, read_json_lines
from vidtl.runtime.progress import Task
from vidtl.runtime.signals import StopSignals
from vidtl.runtime.watchdog import Activity, activity
from vidtl.training.state import TrainingState
from vidtl.training.step import BatchSource, StepReport

FALSE_STOPS = 1e-6  # probability that a run with an allowed share of unreadable videos is ended for it
MAX_NONFINITE_STEPS = 10  # skipped steps in a row after which a run ends

_log = logging.getLogger(__name__)


def is_above(limit: float, unreadable: int, asked: int) -> bool:
    """Decide after any number of videos that the share of unreadable ones in the set is above `limit`.

    True at any time for a set within the limit has a probability below 1e-6, by Ville's inequality for the likelihood
    ratios of two larger shares; for one of twice a limit of 0.05, within 2,000 videos, it has 0.9996.
    """
    if limit in (0, 1):
        return unreadable > limit * asked
    near, far, readable = limit**0.875, limit**0.5, asked - unreadable  # `far` finds large excesses at once
    ratios = (unreadable * math.log(p / limit) + readable * math.log((1 - p) / (1 - limit)) for p in (near, far))
    return max(ratios) > math.log(2 / FALSE_STOPS)


@dataclass
class UnreadableVideos:
    """Writer of `unreadable.jsonl` (a line per failed attempt) and its counts, which are those of the main process.

    Reads that exceeded a limit are in `given_up.jsonl`, too, and a resumed run, in which they may succeed, skips them.
    """

    file: Path
    accelerator: Accelerator
    loader: BatchSource
    max_share: float
    repeats: int
    resumed_step: InitVar[int]
    by_path: Counter[str] = field(default_factory=Counter)
    """Failed attempts of each video."""

    def __post_init__(self, resumed_step: int) -> None:
        self._by_class: Counter[str] = Counter()
        self._given_up_file = self.file.with_name("given_up.jsonl")
        self.given_up = {
            Read(line["epoch"], line["record"], line["tried"]): str(line["reason"])
            for line in read_json_lines(self._given_up_file)
        }
        """Reads that this run or an earlier attempt gave up, with their reasons; new ones in the main process only."""
        if self.accelerator.is_main_process:
            drop_lines_beyond(self.file, resumed_step)
            for entry in read_json_lines(self.file):
                self._count(str(entry["path"]), entry.get("classes", []), entry.get("attempt", 0))
        self._reported = self._by_class.total()

    def add(self, state: TrainingState, num_clips: int, num_failures: int, failures: Sequence[Failure]) -> None:
        """Count one step: clips and failures of all processes, and this process's failures. All processes call this.

        `num_failures` counts no substitutes. UserError where more than `max_share` of the videos are unreadable.
        """
        state.videos_asked += num_clips // self.repeats
        state.videos_unreadable += num_failures
        gathered: list[Failure] = gather_object(list(failures)) if num_failures else []
        if self.accelerator.is_main_process:
            if gathered:
                self._record(state.step, gathered)
            if state.step % self.loader.steps_per_epoch == 0 and self._by_class.total() > self._reported:
                self._reported = self._by_class.total()
                for name, clips in self.by_class(state.step).items():
                    _log.warning("class %s: %d of %d clips replaced so far", name, *clips)
        if num_failures and is_above(self.max_share, state.videos_unreadable, state.videos_asked):
            counts = f"{state.videos_unreadable} of {state.videos_asked} requested videos could not be read"
            allowed, last = f"allowed by data.max_unreadable_share: {self.max_share}", gathered[-1]
            text = f"{counts}; {allowed}; see {self.file}; the last one: {last.path}: {last.reason}"
            raise UserError(f"{text}; a new run leaves out those that tools/prepare.py finds")

    def _record(self, step: int, failures: Sequence[Failure]) -> None:
        with user_error_if_not_written(self.file), self.file.open("a", encoding="utf-8") as stream:
            for failure in failures:
                if failure.path not in self.by_path:
                    path, reason, names = failure.path, failure.reason, ", ".join(failure.classes) or "no class"
                    _log.warning("video cannot be read and is substituted: %s (%s): %s", path, names, reason)
                self._count(failure.path, failure.classes, failure.attempt)
                line = {"step": step, **failure._asdict()}
                del line["record"], line["given_up"]
                stream.write(json.dumps(line) + "\n")  # escapes file names that are not UTF-8
                read = failure.given_up
                if read and read not in self.given_up:
                    self.given_up[read] = failure.reason
                    line = {"step": step, **read._asdict(), "path": failure.path, "reason": failure.reason}
                    with self._given_up_file.open("a", encoding="utf-8") as given_up:
                        given_up.write(json.dumps(line) + "\n")

    def _count(self, path: str, classes: Sequence[str], attempt: int) -> None:
        self.by_path[path] += 1
        if attempt == 0:  # failed substitutes do not replace the clip again
            self._by_class.update(dict.fromkeys(classes, self.repeats))

    def by_class(self, step: int) -> dict[str, tuple[int, int]]:
        """Return the replaced and the requested clips of each class with replaced ones, most first."""
        requested = self.loader.clips_of_classes(step) if self._by_class else {}
        return {name: (count, requested.get(name, 0)) for name, count in self._by_class.most_common()}


class _Pending(NamedTuple):
    report: StepReport
    numbers: Tensor
    """float64 [processes, 5]: shares of loss and accuracy, gradient norm, unreadable videos, `StopSignals.take()`."""
    arrived: torch.cuda.Event | None


@dataclass
class Monitor:
    """Counts, checks and logs of each step, and the state that checkpoints hold."""

    training: TrainingConfig
    accelerator: Accelerator
    state: TrainingState
    unreadable: UnreadableVideos
    signals: StopSignals
    log: MetricsLog | None
    skips_overflows: bool
    stop_signum: int = 0
    """Stop signal that any process has received, equal in all processes."""
    checkpoint_asked: bool = False
    """True if a batch system's early warning asks for a checkpoint; equal in all processes."""

    def __post_init__(self) -> None:
        self.loader = self.unreadable.loader
        # On a GPU, the numbers of a step are read while the next one computes: the device never waits for the host.
        self._lag = 1 if self.accelerator.device.type == "cuda" else 0
        self._pending: deque[_Pending] = deque()
        self._restart_sums()
        self.restart_clock()

    def _restart_sums(self) -> None:
        self._seconds = 0.0
        self._sums: defaultdict[str, float] = defaultdict(float)

    def restart_clock(self) -> None:
        """Exclude the time since the last step (a checkpoint, an evaluation) from the speed."""
        self._last_s = time.perf_counter()

    def add(self, report: StepReport, task: Task) -> None:
        """Add a step that is computed or, on a GPU, being computed. All processes call this."""
        device = report.loss.device
        with activity(Activity.REDUCING):
            # Created on the host: creating a tensor on a GPU from numbers would synchronize.
            num_failures = sum(failure.attempt == 0 for failure in report.failures)
            own = torch.tensor([num_failures, self.signals.take()], dtype=torch.float64)
            shares = torch.stack([report.loss, report.accuracy, report.grad_norm]).double()
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
            report, reduced, arrived = self._pending.popleft()
            if arrived:
                arrived.synchronize()
            shares, accuracies, norms, failures, signums = reduced.T.tolist()
            self.state.step = report.step
            self.checkpoint_asked = self.checkpoint_asked or min(signums) < 0
            self.stop_signum = self.stop_signum or max(0, int(max(signums)))
            self.unreadable.add(self.state, report.num_clips, int(sum(failures)), report.failures)
            self._check_finite(report.step, sum(shares), norms[0])
            self._count(report, sum(shares), sum(accuracies))
            numbers = self._numbers(report, norms[0])
            figures = {
                "loss": f"{numbers['loss']:.4g}",
                "lr": f"{report.learning_rate:.3g}",
                "clips/s": f"{numbers['clips_per_s']:.3g}",
                "data wait": f"{numbers['data_wait_share']:.0%}",
            }
            task.update(report.step, figures)
            if report.step % self.training.log_every_steps == 0 or report.step == self.loader.total_steps:
                if self.log:
                    self.log.write(report.step, report.step / self.loader.steps_per_epoch, numbers)
                self.state.recent_losses.clear()
                self.state.recent_accuracies.clear()
                self._restart_sums()

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
        advice = "optimizer.learning_rate, a longer schedule.warmup, or training.nonfinite skip for single steps"
        found = f"the {name} is {value} in step {step}{also}"
        raise UserError(f"{found}; earlier checkpoints are intact; try a lower {advice}")

    def _count(self, report: StepReport, loss: float, accuracy: float) -> None:
        now = time.perf_counter()
        self._seconds += now - self._last_s
        self._last_s = now
        self._sums["clips_per_s"] += report.num_clips
        self._sums["data_wait_share"] += report.data_wait_s
        self._sums["transfer_share"] += sum(transfer.seconds() for transfer in report.transfers)
        self._sums["compute_share"] += sum(work.seconds() for work in report.compute)
        if math.isfinite(loss):
            self.state.recent_losses.append(loss)
        if math.isfinite(accuracy):
            self.state.recent_accuracies.append(accuracy)

    def _numbers(self, report: StepReport, grad_norm: float) -> dict[str, float]:
        losses, accuracies = self.state.recent_losses, self.state.recent_accuracies
        loss = math.fsum(losses) / len(losses) if losses else math.nan
        numbers = {"loss": loss, "learning_rate": report.learning_rate, "grad_norm": grad_norm}
        numbers |= {name: value / self._seconds for name, value in self._sums.items()}
        numbers |= {"nonfinite_steps": self.state.nonfinite_steps} if self.state.nonfinite_steps else {}
        return numbers | ({"accuracy": math.fsum(accuracies) / len(accuracies)} if accuracies else {})
