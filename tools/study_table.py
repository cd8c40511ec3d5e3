"""The table of a study: `results.json`, `results.csv`, the figure `study.png` and the lines on the terminal."""

import csv
import json
import shlex
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vidtl.config import ExperimentConfig
from vidtl.config.compare import settings_of
from vidtl.config.study import StudyConfig, StudyRow
from vidtl.errors import UserError, did_you_mean
from vidtl.runtime.logging import installed_versions
from vidtl.visualize import COLORS, label_text, new_figure, save_figure

RESULTS = "results.json"

RunKey = tuple[str, int]
"""Name of the row and seed."""

RunResult = dict[str, Any]
"""Result of one evaluated run, with the keys `RUN_KEYS`."""

RUN_KEYS = ("value", "interval", "device", "precision", "torch", "finished")


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One line of the table."""

    row: StudyRow
    config: ExperimentConfig
    """Of the first seed."""
    parameters: int
    multiply_adds: int
    """Of the forward pass of one clip."""
    runs: dict[int, RunResult]
    """Evaluated runs by seed."""

    @property
    def values(self) -> list[float]:
        """The metric of each run."""
        return [run["value"] for run in self.runs.values()]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without runs."""
        return statistics.fmean(self.values) if self.runs else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.runs) > 1 else None


def read_result(summary_file: Path, metrics_file: Path, metric: str) -> RunResult:
    """Read the result of a finished run from its summary and from the metrics of its evaluation.

    Raises:
        UserError: the evaluation has no such metric, or no value for it.
    """
    summary, judged = (json.loads(file.read_text(encoding="utf-8")) for file in (summary_file, metrics_file))
    if metric not in judged["metrics"]:
        raise UserError(f"{metrics_file} has no metric {metric!r}; {did_you_mean(metric, judged['metrics'])}")
    if judged["metrics"][metric] is None:
        raise UserError(f"{metrics_file} has no value for {metric}: no video or class could be averaged")
    hardware = summary["hardware"]
    return {
        "value": judged["metrics"][metric],
        "interval": judged["intervals"].get(metric),
        "device": hardware["device"] if hardware["device_memory_bytes"] else "CPU",
        "precision": hardware["precision"],
        "torch": summary["versions"]["torch"],
        "finished": summary["attempts"][-1]["ended"].partition("T")[0],
    }


def deciding_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings that must be equal between the runs of a row, by dotted key."""
    settings = settings_of(config, affecting=["training", "scores", "selection"])
    apart_from = {"data.root", "training.seed", "training.precision"}  # recorded with each run, or without effect
    return {key: value for key, value in settings.items() if key not in apart_from}


def recorded_results(
    file: Path, study: StudyConfig, planned: Mapping[RunKey, ExperimentConfig], trained: Collection[RunKey]
) -> dict[RunKey, RunResult]:
    """Read the results of runs whose folders are missing from an earlier `results.json`, which will be replaced.

    Args:
        file: the table; without it there are no results.
        study, planned: results of another study, or of other settings, are refused.
        trained: finished runs that have a folder.

    Raises:
        UserError: results would be lost, because the file has another format, study or settings.
    """
    if not file.is_file():
        return {}
    hint = "move the file away, or give another --results_dir"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in table["rows"]}
        runs = {(name, int(seed)): run for name, row in rows.items() for seed, run in row["runs"].items()}
        results = {key: {name: run[name] for name in RUN_KEYS} for key, run in runs.items() if key not in trained}
        default = deciding_settings(ExperimentConfig())  # of settings that are newer than the table
        settings = {name: {**default, **table["settings"], **row["settings"]} for name, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file} cannot be read, or is of another version; {hint}") from None
    compared = [(name, table.get(name), now) for name, now in judgement(study).items()] if results else []
    for key in results:
        if key not in planned:
            raise UserError(f"{file} has a run of {key[0]!r} with seed {key[1]}, which the study has not; {hint}")
        now, before = deciding_settings(planned[key]), settings[key[0]]
        compared += [(f"{key[0]}: {name}", before.get(name), now.get(name)) for name in sorted({*before, *now})]
    for name, old, new in compared:
        if old != new:
            raise UserError(f"{file}: {name} is {old!r} there and {new!r} here; {hint}")
    return results


def judgement(study: StudyConfig) -> dict[str, str]:
    """Return the settings of the study that its results depend on."""
    return {"metric": study.metric, "judged_on": study.judged_on, "checkpoint": study.checkpoint}


def write_results(study: StudyConfig, rows: Sequence[RowResult], folder: Path) -> None:
    """Write the table as `results.csv`, and as `results.json` with every run and the settings."""
    first, firsts = rows[0], deciding_settings(rows[0].config)
    lines = [
        {
            "name": each.row.name,
            "seeds": len(each.runs),
            "mean": each.mean,
            "deviation": each.deviation,
            "published": each.row.published,
            "parameters": each.parameters,
            "multiply_adds": each.multiply_adds,
            "multiply_add_ratio": each.multiply_adds / first.multiply_adds,
            "options": each.row.options,
            "settings": {key: v for key, v in deciding_settings(each.config).items() if firsts.get(key) != v},
            "runs": each.runs,
        }
        for each in rows
    ]
    content = {
        "title": study.title,
        "command": shlex.join(["python", "tools/study.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        **judgement(study),
        "versions": installed_versions(["vidtl", "torch"]),
        "settings": firsts,
        "rows": lines,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as stream:
        columns = [name for name in lines[0] if name not in ("options", "settings", "runs")]
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def print_results(study: StudyConfig, rows: Sequence[RowResult]) -> None:
    """Print the table."""
    table = Table(title=study.title, title_justify="left")
    table.add_column("variant")
    for heading in ("seeds", study.metric, "published", "parameters", "GMAC", "GMAC ratio"):
        table.add_column(heading, justify="right")
    for each in rows:
        spread = f" ± {100 * each.deviation:.2f}" if each.deviation is not None else ""
        table.add_row(
            each.row.name,
            f"{len(each.runs)}/{len(each.row.seeds)}",
            f"{100 * each.mean:.2f}{spread}" if each.mean is not None else "",
            f"{100 * each.row.published:.2f}" if each.row.published is not None else "",
            f"{each.parameters:,}",
            f"{each.multiply_adds / 1e9:.4f}",
            f"{each.multiply_adds / rows[0].multiply_adds:.3f}",
        )
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def draw_study(study: StudyConfig, rows: Sequence[RowResult], path: Path) -> None:
    """Draw the mean of each row over its multiply-adds as a PNG, with a small dot for each seed.

    Published values are hollow, in the color and shape of their row.
    """
    figure = new_figure(7.5, 4.8)
    axes = figure.subplots()
    for each, (marker, color) in zip(rows, cycle(product("os^D", COLORS)), strict=False):
        giga = each.multiply_adds / 1e9
        label = f"{label_text(each.row.name)} ({len(each.runs)})"
        if each.mean is not None:
            axes.plot(giga, 100 * each.mean, marker, color=color, label=label)
            values = [100 * value for value in each.values]
            axes.plot([giga] * len(values), values, ".-", color=color, markersize=4, linewidth=0.8, alpha=0.6)
        if each.row.published is not None:
            label = None if each.runs else label
            axes.plot(giga, 100 * each.row.published, marker, markerfacecolor="none", color=color, label=label)
    axes.set_title(label_text(study.title, 80))
    axes.set_xlabel("multiply-adds of a forward pass, billions")
    axes.set_ylabel(f"{study.metric}, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if any(each.row.published is not None for each in rows):
        axes.plot([], [], "o", markerfacecolor="none", color="gray", label="published")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", title="variant (number of seeds)", title_fontsize="small")
    save_figure(figure, path)
