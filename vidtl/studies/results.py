"""The table of a study: what its runs reached, beside what was published and what each variant costs."""

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vidtl.config import ExperimentConfig
from vidtl.config.study import StudyRow
from vidtl.studies.cost import Cost
from vidtl.studies.record import deciding_settings
from vidtl.studies.runs import RunFigures, RunResult

RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One line of the table."""

    row: StudyRow
    config: ExperimentConfig
    """Of its first seed."""
    cost: Cost
    runs: dict[int, RunResult]
    """By seed, those that are finished."""

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return {seed: run.value for seed, run in self.runs.items()}

    @property
    def figures(self) -> list[RunFigures]:
        """Of the runs that have any."""
        return [run.figures for run in self.runs.values() if run.figures]

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1); none from fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def clips_per_s(self) -> float | None:
        """Mean over the runs whose speed is known; none where there is none."""
        known = [each.clips_per_s for each in self.figures if each.clips_per_s is not None]
        return statistics.fmean(known) if known else None

    def clips_ratio(self, first: "RowResult") -> float | None:
        """Clips per second to those of the table's first line; none where runs of the two had another device or
        precision, which would be compared in place of the variants."""
        trained_on = {(run.device, run.precision) for row in (self, first) for run in row.runs.values()}
        if len(trained_on) != 1 or not self.clips_per_s or not first.clips_per_s:
            return None
        return self.clips_per_s / first.clips_per_s

    @property
    def data_wait_share(self) -> float | None:
        """Mean over the runs."""
        return statistics.fmean(each.data_wait_share for each in self.figures) if self.figures else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest of the runs."""
        return max(
            (each.peak_memory_bytes for each in self.figures if each.peak_memory_bytes is not None), default=None
        )

    def as_dict(self, first: "RowResult") -> dict[str, object]:
        """The line as it is written to files; on a CPU clips per second are only told as a ratio to the first line.

        Of the settings, those that differ from the first line's.
        """
        settings, firsts = (deciding_settings(each.config) for each in (self, first))
        return {
            "name": self.row.name,
            "options": self.row.options,
            "settings": {key: value for key, value in settings.items() if firsts.get(key) != value},
            "seeds": len(self.values),
            "mean": self.mean,
            "deviation": self.deviation,
            "published": self.row.published,
            **asdict(self.cost),
            "clips_per_s": self.clips_per_s if all(each.on_gpu for each in self.figures) else None,
            "clips_per_s_ratio": self.clips_ratio(first),
            "data_wait_share": self.data_wait_share,
            "peak_memory_bytes": self.peak_memory_bytes,
            "runs": {str(seed): _told(run) for seed, run in sorted(self.runs.items())},
        }


def _told(run: RunResult) -> dict[str, object]:
    """As `results.json` has it: without absolute times of a CPU."""
    figures = run.figures
    if figures and not figures.on_gpu:
        figures = replace(figures, clips_per_s=None)
    return asdict(replace(run, figures=figures))


def write_results(results: Sequence[RowResult], about: dict[str, object], folder: Path) -> list[Path]:
    """`results.json` with everything, and `results.csv` with the table."""
    folder.mkdir(parents=True, exist_ok=True)
    first = results[0]
    lines = [result.as_dict(first) for result in results]
    content = about | {"settings": deciding_settings(first.config), "rows": lines}
    as_json = folder / RESULTS
    as_json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    as_csv = folder / "results.csv"
    columns = [name for name in lines[0] if name not in ("options", "settings", "runs")]
    with as_csv.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return [as_json, as_csv]
