"""The training loop: steps, the lines it logs, checkpoints, evaluations and orderly stops."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from vidtl.config import ExperimentConfig
from vidtl.errors import UserError
from vidtl.runtime.launch import on_main_process
from vidtl.runtime.logging import MetricsLog, read_json_lines
from vidtl.runtime.progress import Progress, Task
from vidtl.runtime.signals import StopSignals
from vidtl.runtime.trackers import start_trackers
from vidtl.training.checkpoint import EXPERIMENT, checkpoint_name, new_checkpoint, prune
from vidtl.training.monitor import Monitor
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.run_directory import RunDirectory, dump_config
from vidtl.training.state import Best, RunFacts, TrainingState, read_state, write_state
from vidtl.training.step import Engine, TrainingTask
from vidtl.training.unreadable import ReplacedClips, UnreadableVideos

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores the model on the evaluation split; called by all processes, with the metrics at least in the first."""


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """How a run ended. Everything after `checkpoint` is complete in the first process only."""

    steps: int
    """Optimizer steps of the whole run, resumed parts included."""
    resumed_step: int
    """Steps that an earlier attempt had done; 0 for a new run."""
    checkpoint: Path
    """The last one."""
    metrics: dict[str, float]
    """Of the last evaluation; empty without one."""
    best: Best | None
    """Of all periodic evaluations."""
    unreadable: dict[str, int]
    """Failed attempts to read each video that could not be read."""
    replaced: dict[str, ReplacedClips]
    """Of each class that lost any: clips that another video stood in for, and all that were asked for."""


def train(
    config: ExperimentConfig,
    output_dir: Path,
    accelerator: Accelerator,
    task: TrainingTask,
    model: nn.Module,
    evaluate: Evaluate | None,
    progress: Progress,
) -> TrainingSummary:
    """Train `model` in place, to the end of the schedule, from the newest checkpoint in `output_dir` or from the start.

    A run that is killed at any moment and started again ends with the same weights, bit by bit, as one that was not (on
    the same machine, with as many processes and accumulation steps). Every process must build `model` the same way and
    see `output_dir`.

    Raises:
        UserError: the directory is in use or holds another experiment; a checkpoint cannot be written; the loss is not
            finite; too many videos cannot be read.
        StoppedBySignalError: a signal asked for it; a checkpoint of the last finished step was written.
    """
    directory = RunDirectory(output_dir)
    with ExitStack() as stack, StopSignals() as signals:

        def lock_and_find() -> Path | None:
            stack.enter_context(directory.locked())
            return directory.find_checkpoint(config)

        checkpoint = on_main_process(accelerator, lock_and_find)
        state = read_state(checkpoint, run_facts(task)) if checkpoint else TrainingState()
        resumed_step = state.step
        engine = Engine(model, config, accelerator, task)
        if checkpoint:
            engine.load(checkpoint, state.scaler)
        on_main_process(accelerator, partial(directory.take, config))
        log = None
        if accelerator.is_main_process:
            trackers = start_trackers(config.training.trackers, output_dir, asdict(config), resumed_step)
            log = MetricsLog(directory.metrics_file, trackers, resumed_step)
            stack.callback(log.close)
        unreadable = UnreadableVideos(directory.unreadable_file, config, accelerator, task.loader, resumed_step)
        run = _Run(engine, directory, Monitor(engine, state, unreadable, signals, log), evaluate, progress)
        run.to_the_end()
        return TrainingSummary(
            steps=state.step,
            resumed_step=resumed_step,
            checkpoint=directory.checkpoints / checkpoint_name(run.saved_step),
            metrics=run.metrics,
            best=state.best,
            unreadable=unreadable.by_path(),
            replaced=unreadable.by_class(state.step),
        )


class _Run:
    """A run under way: everything has been opened, checked and restored."""

    def __init__(
        self, engine: Engine, directory: RunDirectory, monitor: Monitor, evaluate: Evaluate | None, progress: Progress
    ) -> None:
        self.engine = engine
        self.config = engine.config
        self.accelerator = engine.accelerator
        self.loader = engine.task.loader
        self.directory = directory
        self.monitor = monitor
        self.state = monitor.state
        self.evaluate = evaluate
        self.progress = progress
        self.saved_step = self.state.step
        self.best_metric = "mAP" if engine.task.multi_label else "top1"
        self.metrics: dict[str, float] = {}

    def to_the_end(self) -> None:
        """All steps that are left."""
        total, start = self.loader.total_steps, self.state.step
        if on_main_process(self.accelerator, self._evaluation_is_missing):
            self._evaluate()
        if start == total:
            return
        batches = DeviceBatches(self.loader.iterate(start), self.accelerator.device)
        with self.progress.task("training", "steps", total, start) as task:
            self.monitor.restart_clock()
            for step in range(start, total):
                self._step(step, batches, task)
                if self._checkpoint_due(step + 1):
                    self.monitor.settle(task)
                    self._save()
                if self._evaluation_due(step + 1):
                    self._evaluate()

    def _step(self, step: int, batches: DeviceBatches, task: Task) -> None:
        try:
            report = self.engine.step(step, self.engine.learning_rate(step), batches)
        except UserError:
            # Batch systems signal the decoding workers too; then the batches may end before the end of the step.
            if self.monitor.signals.signum and self.accelerator.num_processes == 1:
                self._stop(self.monitor.signals.signum, task)
            raise
        self.monitor.watch(report, task)
        if self.monitor.stop_signum:
            self._stop(self.monitor.stop_signum, task)

    def _stop(self, signum: int, task: Task) -> None:
        self.monitor.settle(task)
        self._save()
        StopSignals.check(signum)

    def _evaluation_due(self, finished: int) -> bool:
        if self.evaluate is None:
            return False
        interval = round(self.config.training.evaluate_every_epochs * self.loader.steps_per_epoch)
        return finished == self.loader.total_steps or (interval > 0 and finished % interval == 0)

    def _checkpoint_due(self, finished: int) -> bool:
        regular = finished % self.config.training.checkpoint_every_steps == 0
        return regular or finished == self.loader.total_steps or self._evaluation_due(finished)

    def _save(self) -> None:
        if self.state.step != self.saved_step:
            on_main_process(self.accelerator, self._write_checkpoint)
            self.saved_step = self.state.step
            self.monitor.restart_clock()

    def _write_checkpoint(self) -> None:
        self.state.scaler = self.engine.scaler_state()
        training = self.config.training
        about = {
            "epoch": self.state.step / self.loader.steps_per_epoch,
            "seed": training.seed,
            "global_batch": training.batch_size,
            "num_processes": self.accelerator.num_processes,
        }
        folder = self.directory.checkpoints
        with new_checkpoint(folder, self.state.step, self.engine.state_bytes()) as directory:
            self.engine.save(directory)
            write_state(directory, self.state, run_facts(self.engine.task), about)
            (directory / EXPERIMENT).write_text(dump_config(self.config), encoding="utf-8")
        self._prune()

    def _prune(self) -> None:
        best = self.state.best
        prune(self.directory.checkpoints, self.config.training.keep_checkpoints, best.step if best else None)

    def _evaluate(self) -> None:
        """Score the weights as they are; training is not disturbed, because it seeds each forward pass anew."""
        assert self.evaluate is not None
        # the checkpoint is written and the evaluation will be repeated
        with self.monitor.signals.immediate(), self.engine.evaluated() as model:
            self.metrics = self.evaluate(model)
        if self.monitor.log:
            step = self.state.step
            self.monitor.log.write(step, step / self.loader.steps_per_epoch, self.metrics, self.config.data.eval_split)
            self._note_best(step, self.metrics.get(self.best_metric))
            self._prune()
        self.monitor.restart_clock()

    def _note_best(self, step: int, value: float | None) -> None:
        best = self.state.best
        if value is not None and math.isfinite(value) and (best is None or value > best.value):
            self.state.best = Best(self.best_metric, value, step)

    def _evaluation_is_missing(self) -> bool:
        """Recall earlier evaluations from the log; whether an attempt ended between a checkpoint and its evaluation."""
        for line in read_json_lines(self.directory.metrics_file):
            if "split" in line and line["step"] <= self.state.step:
                self._note_best(line["step"], line.get(self.best_metric))
                if line["step"] == self.state.step:
                    self.metrics = {
                        name: math.nan if value is None else value
                        for name, value in line.items()
                        if name not in ("step", "epoch", "split")
                    }
        return self.state.step > 0 and self._evaluation_due(self.state.step) and not self.metrics


def run_facts(task: TrainingTask) -> RunFacts:
    """What a checkpoint records of the data."""
    return RunFacts(task.loader.steps_per_epoch, task.loader.total_steps, task.num_classes)
