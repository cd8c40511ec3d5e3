"""Runs that an earlier table tells of and whose folders are gone, so that a study can go on on another machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vidtl.config import ExperimentConfig
from vidtl.config.checks import Effect
from vidtl.config.compare import differences, settings_of
from vidtl.errors import UserError
from vidtl.studies.runs import RunFigures, RunResult

_AFFECTING: tuple[Effect, ...] = ("training", "scores", "selection")

_APART_FROM = ("data.root", "training.seed", "training.precision")
"""Data may lie elsewhere; seed and precision are recorded with each run."""


class RunKey(NamedTuple):
    """One run of a study."""

    row: str
    """Its name."""
    seed: int


def deciding_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Those that a run must share with the others of its row, by dotted key."""
    return {key: value for key, value in settings_of(config, _AFFECTING).items() if key not in _APART_FROM}


def read_recorded(
    file: Path, about: Mapping[str, object], planned: Mapping[RunKey, ExperimentConfig], at_hand: set[RunKey]
) -> dict[RunKey, RunResult]:
    """Runs in an earlier `results.json` that are not at hand; none where there is no such file.

    Args:
        file: the table, which is going to be written anew.
        about: what of the study decides its figures, as the file has it (`metric` and others).
        planned: the runs of the study.
        at_hand: runs whose folders say what they came to, whatever the file says.

    Raises:
        UserError: runs would be lost, for the file is no table, of another version, or of another study.
    """
    if not file.is_file():
        return {}
    way_out = "move the file away, or give another --results_dir"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        runs = {RunKey(row["name"], int(seed)): run for row in table["rows"] for seed, run in _runs(row).items()}
        lost = {key: run for key, run in runs.items() if key not in at_hand}
        if not lost:
            return {}
        settings = {row["name"]: table["settings"] | row["settings"] for row in table["rows"]}
        results = {key: _result(run) for key, run in lost.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{file} tells of runs whose folders are not in --output_dir, and cannot be read, or is of another "
            f"version; {way_out}"
        ) from None
    _check_same_study(file, table, about, way_out)
    for key in lost:
        if key not in planned:
            raise UserError(f"{file} has a run of {key.row!r} with seed {key.seed}, which the study has not; {way_out}")
        for name, old, new in differences(settings[key.row], planned[key], _AFFECTING, _APART_FROM)[:1]:
            raise UserError(f"{file}: {key.row!r} was run with {name} {old!r}, which is {new!r} now; {way_out}")
    return results


def _runs(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """By seed; an older version had only values."""
    runs: Mapping[str, Any] = row["runs"] if "runs" in row else row["values"]
    return runs


def _result(run: dict[str, Any]) -> RunResult:
    figures = run["figures"]
    return RunResult(**run | {"figures": RunFigures(**figures) if figures else None})


def _check_same_study(file: Path, table: Mapping[str, object], about: Mapping[str, object], way_out: str) -> None:
    for name, now in about.items():
        if table.get(name) != now:
            raise UserError(
                f"{file} is of another study: {name} is {table.get(name)!r} there and {now!r} here; {way_out}"
            )
