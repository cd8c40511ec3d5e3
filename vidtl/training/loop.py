"""The training loop: steps, the lines it logs, checkpoints, evaluations and orderly stops."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch
from vidtl.errors import UserError
from vidtl.runtime.launch import on_main_process
from vidtl.runtime.logging import MetricsLog
from vidtl.runtime.progress import Progress, Task
from vidtl.runtime.signals import StopSignals
from vidtl.runtime.trackers import start_trackers
from vidtl.runtime.watchdog import Activity, doing, watchdog
from vidtl.training.checkpoint import EXPERIMENT, checkpoint_name, new_checkpoint
from vidtl.training.failures import ReplacedClips, UnreadableVideos
from vidtl.training.monitor import Monitor
from vidtl.training.periodic_evaluation import Evaluate, PeriodicEvaluation
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.run_directory import RunDirectory, dump_config
from vidtl.training.run_summary import RunSummary, describe_run
from vidtl.training.snapshot import Snapshot
from vidtl.training.state import Best, RunFacts, TrainingState, read_state, write_state
from vidtl.training.step import Engine, TrainingTask

__all__ = ["Evaluate", "TrainingSummary", "train"]


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
        on_main_process(accelerator, partial(directory.take, config, checkpoint))
        log = None
        results: dict[str, Any] = {}
        if accelerator.is_main_process:
            about = {**describe_run(config, accelerator), **task.about}
            results = stack.enter_context(RunSummary(directory.summary_file, about, state).completed())
            trackers = start_trackers(config.training.trackers, output_dir, asdict(config), resumed_step)
            log = MetricsLog(directory.metrics_file, trackers, resumed_step)
            stack.callback(log.close)
        unreadable = UnreadableVideos(directory.unreadable_file, config, accelerator, task.loader, resumed_step)
        monitor = Monitor(engine, state, unreadable, signals, log)
        evaluation = PeriodicEvaluation(directory, monitor, evaluate)
        run = _Run(directory, monitor, evaluation, progress)
        with watchdog(accelerator, config.training.hang_timeout_s, directory.stacks, signals.arrived):
            run.to_the_end()
        metrics = {name: value if math.isfinite(value) else None for name, value in evaluation.metrics.items()}
        results |= {"metrics": metrics, "unreadable": unreadable.by_path()}
        return TrainingSummary(
            steps=state.step,
            resumed_step=resumed_step,
            checkpoint=directory.checkpoints / checkpoint_name(run.saved_step),
            metrics=evaluation.metrics,
            best=state.best,
            unreadable=unreadable.by_path(),
            replaced=unreadable.by_class(state.step),
        )


class _Run:
    """A run under way: everything has been opened, checked and restored."""

    def __init__(
        self, directory: RunDirectory, monitor: Monitor, evaluation: PeriodicEvaluation, progress: Progress
    ) -> None:
        self.directory = directory
        self.monitor = monitor
        self.evaluation = evaluation
        self.progress = progress
        self.engine = monitor.engine
        self.config = self.engine.config
        self.accelerator = self.engine.accelerator
        self.loader = self.engine.task.loader
        self.state = monitor.state
        self.saved_step = self.state.step

    def to_the_end(self) -> None:
        """All steps that are left, unless an early stop ends them."""
        total, start = self.loader.total_steps, self.state.step
        self.evaluation.catch_up()
        if start == total or self.evaluation.says_stop():
            return
        batches = DeviceBatches(noted(self.loader.iterate(start)), self.accelerator.device)
        with self.progress.task("training", "steps", total, start) as task:
            self.monitor.restart_clock()
            for step in range(start, total):
                self._step(step, batches, task)
                if self.monitor.checkpoint_wanted or self._checkpoint_due(step + 1):
                    self.monitor.settle(task)
                    self._save()
                if self.evaluation.is_due(step + 1):
                    self.evaluation.run()
                    if self.evaluation.says_stop():
                        return

    def _step(self, step: int, batches: DeviceBatches, task: Task) -> None:
        doing(Activity.COMPUTING, step)
        try:
            report = self.engine.step(step, self.engine.learning_rate(step), batches)
        except UserError:
            # Batch systems signal the decoding workers too; then the batches may end before the end of the step.
            if self.monitor.signals.signum and self.accelerator.num_processes == 1:
                self._stop(self.monitor.signals.signum, task)
            raise
        doing(Activity.COMPARING)
        self.monitor.watch(report, task)
        if self.monitor.stop_signum:
            self._stop(self.monitor.stop_signum, task)

    def _stop(self, signum: int, task: Task) -> None:
        self.monitor.settle(task)
        self._save()
        StopSignals.check(signum)

    def _checkpoint_due(self, finished: int) -> bool:
        regular = finished % self.config.training.checkpoint_every_steps == 0
        return regular or finished == self.loader.total_steps or self.evaluation.is_due(finished)

    def _save(self) -> None:
        if self.state.step != self.saved_step:
            doing(Activity.SAVING, self.state.step)
            snapshot = self.engine.snapshot()
            on_main_process(self.accelerator, partial(self._write_checkpoint, snapshot))
            self.saved_step = self.state.step
        self.monitor.checkpoint_written()

    def _write_checkpoint(self, snapshot: Snapshot) -> None:
        self.state.scaler = self.engine.scaler_state()
        training = self.config.training
        about = {
            "epoch": self.state.step / self.loader.steps_per_epoch,
            "seed": training.seed,
            "global_batch": training.batch_size,
            "num_processes": self.accelerator.num_processes,
        }
        with new_checkpoint(self.directory.checkpoints, self.state.step, snapshot.num_bytes) as directory:
            self.engine.save(directory, snapshot)
            write_state(directory, self.state, run_facts(self.engine.task), about)
            (directory / EXPERIMENT).write_text(dump_config(self.config), encoding="utf-8")
        self.evaluation.prune()


def noted(batches: Iterator[ClipBatch]) -> Iterator[ClipBatch]:
    """The batches; the watchdog is told whom they keep waiting."""
    while True:
        doing(Activity.READING)
        try:
            batch = next(batches)
        except StopIteration:
            return
        doing(Activity.COMPUTING)
        yield batch


def run_facts(task: TrainingTask) -> RunFacts:
    """What a checkpoint records of the data."""
    return RunFacts(
        num_classes=task.num_classes,
        num_videos=task.num_videos,
        steps_per_epoch=task.loader.steps_per_epoch,
        total_steps=task.loader.total_steps,
        data_sha256=task.data_sha256,
    )
