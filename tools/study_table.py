"""The file of a study, and its table: `results.json`, `results.csv`, the figure `study.png`, lines on the terminal."""

import csv
import json
import re
import shlex
import statistics
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, product
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from vidtl.config import ExperimentConfig
from vidtl.config.checks import require
from vidtl.config.compare import settings_of
from vidtl.errors import UserError, did_you_mean
from vidtl.runtime.logging import installed_versions

Options = dict[str, bool | int | float | str | list[int] | list[float] | None]
"""Settings by dotted key."""

RunKey = tuple[str, int]
"""Name of the row and seed."""

RunResult = dict[str, Any]
"""Result of one evaluated run, with the keys `RUN_KEYS`."""

RUN_KEYS = ("value", "interval", "device", "precision", "torch", "finished")


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One variant of the experiment: one line of the table."""

    name: str
    """Name in the table; `folder` has hyphens in place of all but letters, digits and dots."""
    options: Options
    """Settings that differ from the experiment; `{}` for none."""
    seeds: list[int]
    """`training.seed` of each run."""
    published: float | None = None
    """Value in the source, in the unit of the metric (0 to 1)."""
    tokens: int | None = None
    """Number of tokens for the evaluation of an elastic model. Rows of equal options share their runs."""

    @property
    def folder(self) -> str:
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.").lower()

    def __post_init__(self) -> None:
        require(bool(self.folder), "name", self.name, "a name with a letter or a digit")
        require(len(set(self.seeds)) == len(self.seeds) > 0, "seeds", self.seeds, "one seed or more, each once")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study file; see `configs/studies/`."""

    title: str
    experiment: str
    """Configuration file of the experiment, relative to the folder of the study file."""
    options: Options = field(default_factory=dict)
    """Settings of all rows that differ from the experiment."""
    rows: list[StudyRow]
    """Variants; multiply-adds are compared with those of the first."""
    metric: str = "top1"
    """Name of a metric in `metrics.json`."""
    checkpoint: Literal["best", "last"] = "last"
    """Checkpoint to evaluate: the best of the periodic evaluations on `data.eval_split`, or the last."""
    judged_on: str = "val"
    """Split that the checkpoint is evaluated on."""

    def __post_init__(self) -> None:
        require(bool(self.rows), "rows", self.rows, "one row or more")
        folders = [row.folder for row in self.rows]
        twice = [row.name for row in self.rows if folders.count(row.folder) > 1]
        require(not twice, "rows.name", twice, "names that differ in letters or digits")

    @property
    def judgement(self) -> dict[str, str]:
        """The settings that affect the results, apart from those of the runs."""
        return {"metric": self.metric, "judged_on": self.judged_on, "checkpoint": self.checkpoint}


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One line of the table: configuration of the first seed, costs, and evaluated runs by seed."""

    row: StudyRow
    config: ExperimentConfig
    parameters: int
    multiply_adds: int
    """Multiply-adds of the forward pass of one clip."""
    runs: dict[int, RunResult]

    @property
    def values(self) -> list[float]:
        return [run["value"] for run in self.runs.values()]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.runs else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.runs) > 1 else None


def read_result(summary_file: Path, metrics_file: Path, metric: str) -> RunResult:
    """Read the result of a finished run from its summary and its metrics; UserError if the metric has no value."""
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
    """Return the settings that are equal in all runs of a row, by dotted key."""
    settings = settings_of(config, affecting=["training", "scores", "selection"])
    apart_from = {"data.root", "training.seed", "training.precision"}  # recorded with each run, or without effect
    return {key: value for key, value in settings.items() if key not in apart_from}


def recorded_results(
    file: Path, study: StudyConfig, planned: Mapping[RunKey, ExperimentConfig], trained: Collection[RunKey]
) -> dict[RunKey, RunResult]:
    """Read the results of runs that are not `trained`, without a folder, from an earlier `results.json`, if it exists.

    UserError: results would be lost, because the file has another format, or another study or settings than `planned`.
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
    compared = [(name, table.get(name), now) for name, now in study.judgement.items()] if results else []
    for key in results:
        if key not in planned:
            raise UserError(f"{file} has a run of {key[0]!r} with seed {key[1]}, which the study has not; {hint}")
        now, before = deciding_settings(planned[key]), settings[key[0]]
        compared += [(f"{key[0]}: {name}", before.get(name), now.get(name)) for name in sorted({*before, *now})]
    for name, old, new in compared:
        if old != new:
            raise UserError(f"{file}: {name} is {old!r} there and {new!r} here; {hint}")
    return results


def write_table(study: StudyConfig, rows: Sequence[RowResult], file: Path) -> None:
    """Write the table as JSON with every run and the settings, and beside it as CSV."""
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
        **study.judgement,
        "versions": installed_versions(["vidtl", "torch"]),
        "settings": firsts,
        "rows": lines,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with file.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        columns = list(lines[0])[:8]  # without options, settings and runs
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def print_table(study: StudyConfig, rows: Sequence[RowResult]) -> None:
    """Print the table."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    table = Table("variant", title=study.title, title_justify="left")
    for heading in ("seeds", study.metric, "published", "parameters", "GMAC", "GMAC ratio"):
        table.add_column(heading, justify="right")
    for each in rows:
        seeds = f"{len(each.runs)}/{len(each.row.seeds)}"
        value = percent(each.mean) + (f" ± {percent(each.deviation)}" if each.deviation is not None else "")
        costs = f"{each.parameters:,}", f"{each.multiply_adds / 1e9:.4f}"
        ratio = f"{each.multiply_adds / rows[0].multiply_adds:.3f}"
        table.add_row(each.row.name, seeds, value, percent(each.row.published), *costs, ratio)
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def draw_table(study: StudyConfig, rows: Sequence[RowResult], path: Path) -> None:
    """Draw the mean of each row over its multiply-adds as a PNG, with a dot per seed; published values are hollow."""
    from vidtl import visualize  # slow; the file of a study is read before

    figure = visualize.new_figure(7.5, 4.8)
    axes = visualize.bare(figure.subplots())
    for each, (marker, color) in zip(rows, cycle(product("os^D", visualize.COLORS)), strict=False):
        giga = each.multiply_adds / 1e9
        label = f"{visualize.label_text(each.row.name)} ({len(each.runs)})"
        if each.mean is not None:
            axes.plot(giga, 100 * each.mean, marker, color=color, label=label)
            values = [100 * value for value in each.values]
            axes.plot([giga] * len(values), values, ".-", color=color, markersize=4, linewidth=0.8, alpha=0.6)
        if each.row.published is not None:
            label = None if each.runs else label
            axes.plot(giga, 100 * each.row.published, marker, markerfacecolor="none", color=color, label=label)
    axes.set(xlabel="multiply-adds of a forward pass, billions", ylabel=f"{study.metric}, %")
    axes.set_title(visualize.label_text(study.title, 80))
    axes.set_xlim(left=0)
    if any(each.row.published is not None for each in rows):
        axes.plot([], [], "o", markerfacecolor="none", color="gray", label="published")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", title="variant (number of seeds)", title_fontsize="small")
    visualize.save_figure(figure, path)
