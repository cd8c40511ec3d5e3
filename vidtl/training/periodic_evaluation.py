"""Evaluations during a run: when they are due, which was the best, and whether another step is worth its while."""

import math
from collections.abc import Callable, Mapping

from torch import nn

from vidtl.runtime.launch import on_main_process
from vidtl.runtime.logging import read_json_lines
from vidtl.runtime.watchdog import Activity, doing
from vidtl.training.checkpoint import prune
from vidtl.training.monitor import Monitor
from vidtl.training.run_directory import RunDirectory
from vidtl.training.state import Best

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores the model on the evaluation split; called by all processes, with the metrics at least in the first."""


class PeriodicEvaluation:
    """Scores the weights as they are; training is not disturbed, because it seeds each forward pass anew."""

    def __init__(self, directory: RunDirectory, monitor: Monitor, evaluate: Evaluate | None) -> None:
        self.directory = directory
        self.monitor = monitor
        self.engine = monitor.engine
        self.state = monitor.state
        self.evaluate = evaluate
        self.metrics: dict[str, float] = {}
        """Of the last evaluation, in the first process."""
        self._metric = "mAP" if self.engine.task.multi_label else "top1"

    def is_due(self, finished: int) -> bool:
        """Whether there is one after `finished` steps."""
        if self.evaluate is None:
            return False
        loader = self.engine.task.loader
        epochs = self.engine.config.training.evaluate_every_epochs
        period = max(1, round(epochs * loader.steps_per_epoch)) if epochs else loader.total_steps
        return finished == loader.total_steps or finished % period == 0

    def catch_up(self) -> None:
        """Recall the evaluations of earlier attempts; repeat one that ended between a checkpoint and its scores."""
        if on_main_process(self.engine.accelerator, self._recall):
            self.run()

    def run(self) -> None:
        """Evaluate now; every process calls this, once the checkpoint is written."""
        assert self.evaluate is not None
        doing(Activity.EVALUATING, self.state.step)
        with self.monitor.signals.immediate(), self.engine.evaluated() as model:
            self.metrics = self.evaluate(model)
        if self.monitor.log:
            step, loader = self.state.step, self.engine.task.loader
            split = self.engine.config.data.eval_split
            self.monitor.log.write(step, step / loader.steps_per_epoch, self.metrics, split)
            self._note(step, self.metrics)
            self.prune()
        self.monitor.restart_clock()

    def prune(self) -> None:
        """Keep the newest checkpoints and the best."""
        best = self.state.best
        prune(self.directory.checkpoints, self.engine.config.training.keep_checkpoints, best.step if best else None)

    def says_stop(self) -> bool:
        """Whether so many evaluations in a row were no better that the run ends; the same in all processes."""
        patience = self.engine.config.training.early_stop_evaluations
        if patience == 0:
            return False
        return on_main_process(self.engine.accelerator, lambda: self.state.evaluations_since_best >= patience)

    def _note(self, step: int, metrics: Mapping[str, float | None]) -> None:
        if step <= self.state.evaluated_step:
            return
        value, best = metrics.get(self._metric), self.state.best
        self.state.evaluated_step = step
        if value is not None and math.isfinite(value) and (best is None or value > best.value):
            self.state.best, self.state.evaluations_since_best = Best(self._metric, value, step), 0
        else:
            self.state.evaluations_since_best += 1

    def _recall(self) -> bool:
        """The log is newer than the checkpoint, which was written before its evaluation. Whether that is missing."""
        for line in read_json_lines(self.directory.metrics_file):
            if "split" in line and line["step"] <= self.state.step:
                self._note(line["step"], line)
                if line["step"] == self.state.step:
                    self.metrics = {
                        name: math.nan if value is None else value
                        for name, value in line.items()
                        if name not in ("step", "epoch", "split")
                    }
        return self.state.step > 0 and self.is_due(self.state.step) and not self.metrics
