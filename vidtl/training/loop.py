"""The training loop: steps, checkpoints, evaluations and orderly stops."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch
from vidtl.errors import UserError
from vidtl.metrics import Metric
from vidtl.metrics.table import evaluation_line
from vidtl.runtime.launch import on_main_process
from vidtl.runtime.logging import MetricsLog, read_json_lines, start_trackers
from vidtl.runtime.progress import Progress, Task
from vidtl.runtime.signals import StopSignals
from vidtl.runtime.watchdog import Activity, activity, heartbeat, watchdog
from vidtl.training.checkpoint import Best, find_best_metric
from vidtl.training.checkpoint_directory import EXPERIMENT, checkpoint_name, new_checkpoint, prune
from vidtl.training.monitor import Monitor, UnreadableVideos
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.run_directory import RunDirectory, describe_run, dump_config, run_summary
from vidtl.training.state import Snapshot, TrainingState, read_state, write_state
from vidtl.training.step import Engine, TrainingTask

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores the model on the evaluation split; called by all processes, with complete metrics in the main one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """Results of a run; `metrics`, `best`, `unreadable` and `replaced` are complete in the main process only."""

    steps: int
    """Finished optimizer steps, resumed parts included."""
    resumed_step: int
    """Step of the checkpoint at the start; 0 for a new run."""
    checkpoint: Path
    metrics: dict[str, float]
    """Last evaluation; empty without one."""
    best: Best | None
    unreadable: dict[str, int]
    """Failed attempts to read, by video."""
    replaced: dict[str, tuple[int, int]]
    """Replaced and requested clips, by class."""


def train(
    config: ExperimentConfig,
    output_dir: Path,
    accelerator: Accelerator,
    task: TrainingTask,
    model: nn.Module,
    evaluate: Evaluate | None,
    progress: Progress,
) -> TrainingSummary:
    """Train `model` in place to the end of the schedule, from the newest checkpoint in `output_dir` if there is one.

    A run that is killed at any time and started again ends with bitwise equal weights (on the same machine, with the
    same number of processes and accumulation steps). Every process must build the same `model` and see `output_dir`.

    UserError: `training.best_metric` does not exist; the directory is in use or holds another experiment; a checkpoint
    cannot be written; the loss is not finite; too many videos cannot be read. StoppedBySignalError: after a checkpoint
    of the last finished step.
    """
    best_metric = find_best_metric(config.training.best_metric, task.multi_label, task.num_classes)
    directory = RunDirectory(output_dir)
    with ExitStack() as stack, StopSignals(config.training.on_sigusr1 == "stop") as signals:

        def lock_and_find() -> Path | None:
            stack.enter_context(directory.locked())
            return directory.find_checkpoint(config)

        checkpoint = on_main_process(accelerator, lock_and_find)
        state = read_state(checkpoint, task.facts()) if checkpoint else TrainingState()
        if state.best and state.best.metric != best_metric.name:  # decided anew from all evaluations
            state.best, state.evaluated_step, state.evaluations_since_best = None, 0, 0
        start = state.step
        engine = Engine(model, config, accelerator, task)
        if checkpoint:
            engine.load(checkpoint, state.scaler)
        on_main_process(accelerator, partial(directory.take, config, checkpoint, task.left_out))
        max_share, repeats = config.data.max_unreadable_share, config.augmentation.repeats
        unreadable = UnreadableVideos(directory.unreadable_file, accelerator, task.loader, max_share, repeats, start)
        log, results = None, {}
        if accelerator.is_main_process:
            about = {**describe_run(config, accelerator), **task.about}
            if checkpoint:
                total = task.loader.total_steps
                _log.info("resumed from %s: step %d of %d, %d left", checkpoint, start, total, total - start)
            results = stack.enter_context(run_summary(directory.summary_file, about, state))
            trackers = start_trackers(config.training.trackers, output_dir, asdict(config), start)
            log = stack.enter_context(closing(MetricsLog(directory.metrics_file, trackers, start)))
        run = _Run(directory, engine, state, unreadable, signals, log, evaluate, best_metric)
        with watchdog(accelerator, config.training.hang_timeout_s, directory.stacks, signals.arrived):
            run.to_the_end(progress)
        results["metrics"] = {name: value if math.isfinite(value) else None for name, value in run.metrics.items()}
        results["unreadable"] = dict(unreadable.by_path)
        return TrainingSummary(
            steps=state.step,
            resumed_step=start,
            checkpoint=directory.checkpoints / checkpoint_name(state.step),
            metrics=run.metrics,
            best=state.best,
            unreadable=dict(unreadable.by_path),
            replaced=unreadable.by_class(state.step),
        )


@dataclass
class _Run:
    directory: RunDirectory
    engine: Engine
    state: TrainingState
    unreadable: UnreadableVideos
    signals: StopSignals
    log: MetricsLog | None
    evaluate: Evaluate | None
    best_metric: Metric
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config, self.accelerator = self.engine.config, self.engine.accelerator
        self.loader = self.engine.task.loader
        self.saved_step = self.state.step
        training, skips = self.config.training, self.engine.skips_overflows
        self.monitor = Monitor(training, self.accelerator, self.state, self.unreadable, self.signals, self.log, skips)

    def to_the_end(self, progress: Progress) -> None:
        """Run all steps that are left, unless an early stop ends them."""
        total, start = self.loader.total_steps, self.state.step
        if on_main_process(self.accelerator, self._recall_evaluations):
            self._evaluate()
        if start == total or self._should_stop_early():
            return
        batches = DeviceBatches(self._batches(start), self.accelerator.device)
        with progress.task("training", "steps", total, start) as task:
            self.monitor.restart_clock()
            for step in range(start, total):
                self._step(step, batches, task)
                if self._checkpoint_due(step + 1):
                    self.monitor.settle(task)
                    self._save()
                if self._evaluation_due(step + 1):
                    self._evaluate()
                    if self._should_stop_early():
                        return

    def _batches(self, start: int) -> Iterator[ClipBatch]:
        draw = self.engine.task.draw
        for number, batch in enumerate(self.loader.iterate(start, self.unreadable.given_up), start):
            if number == 0 and draw and self.log:
                self.log.show("clips", draw(batch.to(self.accelerator.device)), step=0)
            yield batch

    def _step(self, step: int, batches: DeviceBatches, task: Task) -> None:
        heartbeat(Activity.COMPUTING, step)
        try:
            report = self.engine.step(step, self.engine.learning_rate(step), batches)
        except UserError:
            # Batch systems signal decoding workers too, which may end the batches within a step.
            if self.signals.signum and self.accelerator.num_processes == 1:
                self._stop(self.signals.signum, task)
            raise
        self.monitor.add(report, task)
        if self.monitor.stop_signum:
            self._stop(self.monitor.stop_signum, task)

    def _stop(self, signum: int, task: Task) -> None:
        self.monitor.settle(task)
        self._save()
        StopSignals.check(signum)

    def _checkpoint_due(self, finished: int) -> bool:
        regular = finished % self.config.training.checkpoint_every_steps == 0 or self.monitor.checkpoint_asked
        return regular or finished == self.loader.total_steps or self._evaluation_due(finished)

    def _save(self) -> None:
        if self.state.step != self.saved_step:
            with activity(Activity.SAVING, self.state.step):
                snapshot = self.engine.snapshot()
                on_main_process(self.accelerator, partial(self._write_checkpoint, snapshot))
            self.saved_step = self.state.step
        if self.monitor.checkpoint_asked:
            _log.info("SIGUSR1: checkpoint of step %d written", self.saved_step)
        self.monitor.checkpoint_asked = False
        self.monitor.restart_clock()

    def _write_checkpoint(self, snapshot: Snapshot) -> None:
        self.state.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        about = {
            "epoch": self.state.step / self.loader.steps_per_epoch,
            "seed": self.config.training.seed,
            "global_batch": self.config.training.batch_size,
            "num_processes": self.accelerator.num_processes,
        }
        with new_checkpoint(self.directory.checkpoints, self.state.step, snapshot.num_bytes) as directory:
            self.engine.save(directory, snapshot)
            write_state(directory, self.state, self.engine.task.facts(), about)
            (directory / EXPERIMENT).write_text(dump_config(self.config), encoding="utf-8")
        self._prune()

    def _prune(self) -> None:
        best = self.state.best
        prune(self.directory.checkpoints, self.config.training.keep_checkpoints, best.step if best else None)

    def _evaluation_due(self, finished: int) -> bool:
        if self.evaluate is None:
            return False
        epochs, total = self.config.training.evaluate_every_epochs, self.loader.total_steps
        period = max(1, round(epochs * self.loader.steps_per_epoch)) if epochs else total
        return finished == total or finished % period == 0

    def _evaluate(self) -> None:
        """Evaluate after the checkpoint; training is not disturbed, because every forward pass is seeded."""
        assert self.evaluate is not None
        evaluating = activity(Activity.EVALUATING, self.state.step)
        with evaluating, self.signals.immediate(), self.engine.evaluated() as model:
            self.metrics = self.evaluate(model)
        on_main_process(self.accelerator, self._record_evaluation)
        self.monitor.restart_clock()

    def _record_evaluation(self) -> None:
        assert self.log is not None
        step, name, split = self.state.step, self.best_metric.name, self.config.data.eval_split
        epoch = step / self.loader.steps_per_epoch
        is_best = self.state.add_evaluation(step, self.best_metric, self.metrics)
        self.log.write(step, epoch, self.metrics, {"split": split} | ({"best": name} if is_best else {}))
        _log.info("epoch %.4g  step %d  %s %s", epoch, step, split, evaluation_line(self.metrics, name, is_best))
        self._prune()

    def _recall_evaluations(self) -> bool:
        """Read earlier evaluations from the log; return whether the one due after the checkpoint is missing."""
        for line in read_json_lines(self.directory.metrics_file):
            if "split" in line and line["step"] <= self.state.step:
                self.state.add_evaluation(line["step"], self.best_metric, line)
                if line["step"] == self.state.step:
                    values = {name: v for name, v in line.items() if name not in ("step", "epoch", "split", "best")}
                    self.metrics = {name: math.nan if value is None else value for name, value in values.items()}
        return self.state.step > 0 and self._evaluation_due(self.state.step) and not self.metrics

    def _should_stop_early(self) -> bool:
        patience, state = self.config.training.early_stop_evaluations, self.state
        stops = patience > 0 and on_main_process(self.accelerator, lambda: state.evaluations_since_best >= patience)
        if stops and self.log:
            _log.info("ended by training.early_stop_evaluations %d at step %d", patience, self.state.step)
        return stops
