"""What one finished run of a study came to: its result, where it ran, and how fast."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from vidtl.errors import UserError
from vidtl.runtime.logging import read_json_lines
from vidtl.training.checkpoint import checkpoint_name
from vidtl.training.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """How fast one run was, and what its first process held; other work on the machine disturbs both speeds."""

    clips_per_s: float | None
    """Trained on: the median over the lines of `metrics.jsonl`, the first left out, where workers start. `None` for a
    run on a CPU of which nothing is left but what `results.json` told."""
    data_wait_share: float
    """Of the time of a step, waiting for clips; the median over the same lines."""
    peak_memory_bytes: int | None
    """On a GPU what torch had allocated, on a CPU what the whole process held, evaluations included; `None` for runs of
    older versions."""
    on_gpu: bool


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One variant from one seed, judged."""

    value: float
    """The metric of the study."""
    interval: dict[str, float] | None
    """Of the value, as `metrics.json` has it; `None` where it has none."""
    device: str
    """That the run was trained on: the name of the GPU, or `CPU`."""
    precision: str
    """Arithmetic of the forward pass in training: `fp32`, `bf16` or `fp16`."""
    torch: str
    """Version."""
    finished: str
    """Day of its end, as `2026-11-22`."""
    figures: RunFigures | None
    """`None` for a run that wrote less than two lines."""


def finished_steps(folder: Path) -> int | None:
    """Steps of the run in `folder`; `None` before it has come to its end."""
    file = RunDirectory(folder).summary_file
    if not file.is_file():
        return None
    summary = json.loads(file.read_text(encoding="utf-8"))
    steps: int | None = summary.get("results", {}).get("steps") if summary["status"] == "finished" else None
    return steps


def judged_checkpoint(folder: Path, which: str, metric: str) -> Path:
    """The checkpoint of the finished run in `folder` that a study judges: its `last`, or its `best` by `metric`.

    Raises:
        UserError: the best is asked for, and no periodic evaluation had the metric above 0.
    """
    directory = RunDirectory(folder)
    step = finished_steps(folder) if which == "last" else _best_step(directory, metric)
    assert step is not None
    return directory.checkpoints / checkpoint_name(step)


def _best_step(directory: RunDirectory, metric: str) -> int:
    """Of the periodic evaluation that came first with the highest value."""
    evaluations = [line for line in read_json_lines(directory.metrics_file) if "split" in line and line.get(metric)]
    if not evaluations:
        raise UserError(f"{directory.metrics_file} has no evaluation with {metric} above 0; allowed: checkpoint: last")
    step: int = max(evaluations, key=lambda line: line[metric])["step"]
    return step


def read_run(folder: Path, metrics_file: Path, metric: str) -> RunResult:
    """The finished run in `folder`, judged by the evaluation that wrote `metrics_file`.

    Raises:
        UserError: the evaluation has no such metric, or there was nothing to average.
    """
    judged = json.loads(metrics_file.read_text(encoding="utf-8"))
    summary = json.loads(RunDirectory(folder).summary_file.read_text(encoding="utf-8"))
    hardware = summary["hardware"]
    interval: dict[str, float] | None = (judged.get("intervals") or {}).get(metric)
    return RunResult(
        value=_value(judged["metrics"], metric, metrics_file),
        interval=interval,
        device=hardware["device"] if _on_gpu(summary) else "CPU",
        precision=hardware["precision"],
        torch=summary["versions"]["torch"],
        finished=summary["attempts"][-1]["ended"].partition("T")[0],
        figures=read_run_figures(folder),
    )


def read_run_figures(folder: Path) -> RunFigures | None:
    """Figures of the run in `folder`; `None` before it has written two lines."""
    directory = RunDirectory(folder)
    lines = [line for line in read_json_lines(directory.metrics_file) if "clips_per_s" in line][1:]
    if not lines:
        return None
    summary = json.loads(directory.summary_file.read_text(encoding="utf-8"))
    on_gpu = _on_gpu(summary)
    peaks = [attempt.get("peak_memory_bytes") or {} for attempt in summary["attempts"]]
    known = [peak for each in peaks if (peak := each.get("gpu" if on_gpu else "process")) is not None]
    return RunFigures(
        clips_per_s=median(line["clips_per_s"] for line in lines),
        data_wait_share=median(line["data_wait_share"] for line in lines),
        peak_memory_bytes=max(known, default=None),
        on_gpu=on_gpu,
    )


def _on_gpu(summary: dict[str, Any]) -> bool:
    return summary["hardware"]["device_memory_bytes"] is not None


def _value(metrics: dict[str, float | None], metric: str, file: Path) -> float:
    if metric not in metrics:
        raise UserError(f"{file} has no metric {metric!r}; allowed: {', '.join(metrics)}")
    value = metrics[metric]
    if value is None:
        raise UserError(f"{file} has no value for {metric}: no video or class could be averaged")
    return value
