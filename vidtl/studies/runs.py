"""What the finished runs of a study say of their speed and memory."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from vidtl.runtime.logging import read_json_lines
from vidtl.training.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """How fast one run was, and what its first process held; other work on the machine disturbs both speeds."""

    clips_per_s: float
    """Trained on: the median over the lines of `metrics.jsonl`, the first left out, where workers start."""
    data_wait_share: float
    """Of the time of a step, waiting for clips; the median over the same lines."""
    peak_memory_bytes: int | None
    """On a GPU what torch had allocated, on a CPU what the whole process held, evaluations included; `None` for runs of
    older versions."""
    on_gpu: bool


def finished_steps(folder: Path) -> int | None:
    """Steps of the run in `folder`; `None` before it has come to its end."""
    file = RunDirectory(folder).summary_file
    if not file.is_file():
        return None
    summary = json.loads(file.read_text(encoding="utf-8"))
    steps: int | None = summary.get("results", {}).get("steps") if summary["status"] == "finished" else None
    return steps


def read_run_figures(folder: Path) -> RunFigures | None:
    """Figures of the run in `folder`; `None` before it has written two lines."""
    directory = RunDirectory(folder)
    lines = [line for line in read_json_lines(directory.metrics_file) if "clips_per_s" in line][1:]
    if not lines:
        return None
    summary = json.loads(directory.summary_file.read_text(encoding="utf-8"))
    on_gpu = summary["hardware"]["device_memory_bytes"] is not None
    peaks = [attempt.get("peak_memory_bytes") or {} for attempt in summary["attempts"]]
    known = [peak for each in peaks if (peak := each.get("gpu" if on_gpu else "process")) is not None]
    return RunFigures(
        clips_per_s=median(line["clips_per_s"] for line in lines),
        data_wait_share=median(line["data_wait_share"] for line in lines),
        peak_memory_bytes=max(known, default=None),
        on_gpu=on_gpu,
    )
