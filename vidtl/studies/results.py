"""The table of a study: what its runs reached, beside what was published and what each variant costs."""

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vidtl.config.study import StudyRow
from vidtl.errors import UserError
from vidtl.studies.cost import Cost
from vidtl.studies.runs import RunFigures


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One line of the table."""

    row: StudyRow
    values: dict[int, float]
    """The metric by seed, for the runs that are finished."""
    intervals: dict[int, dict[str, float] | None]
    """Of the same values, as `metrics.json` has them; none where it has none."""
    cost: Cost
    runs: list[RunFigures]
    """Of the same seeds."""

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
        """Mean over the runs; none before one is finished."""
        return statistics.fmean(run.clips_per_s for run in self.runs) if self.runs else None

    def clips_ratio(self, first: "RowResult") -> float | None:
        """Clips per second to those of the table's first line."""
        return self.clips_per_s / first.clips_per_s if self.clips_per_s and first.clips_per_s else None

    @property
    def data_wait_share(self) -> float | None:
        """Mean over the runs."""
        return statistics.fmean(run.data_wait_share for run in self.runs) if self.runs else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The largest of the runs."""
        return max((run.peak_memory_bytes for run in self.runs if run.peak_memory_bytes is not None), default=None)

    def as_dict(self, first: "RowResult") -> dict[str, object]:
        """The line as it is written to files; on a CPU clips per second are only told as a ratio to the first line."""
        return {
            "name": self.row.name,
            "options": self.row.options,
            "seeds": len(self.values),
            "mean": self.mean,
            "deviation": self.deviation,
            "published": self.row.published,
            **asdict(self.cost),
            "clips_per_s": self.clips_per_s if all(run.on_gpu for run in self.runs) else None,
            "clips_per_s_ratio": self.clips_ratio(first),
            "data_wait_share": self.data_wait_share,
            "peak_memory_bytes": self.peak_memory_bytes,
            "values": {str(seed): value for seed, value in self.values.items()},
            "intervals": {str(seed): interval for seed, interval in self.intervals.items()},
        }


def read_metric(metrics_file: Path, metric: str) -> float:
    """One metric of a finished evaluation.

    Raises:
        UserError: the file has no such metric, or there was nothing to average.
    """
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))["metrics"]
    if metric not in metrics:
        raise UserError(f"{metrics_file} has no metric {metric!r}; allowed: {', '.join(metrics)}")
    if metrics[metric] is None:
        raise UserError(f"{metrics_file} has no value for {metric}: no video or class could be averaged")
    return float(metrics[metric])


def read_interval(metrics_file: Path, metric: str) -> dict[str, float] | None:
    """The interval of a metric of a finished evaluation; None where it has none."""
    intervals = json.loads(metrics_file.read_text(encoding="utf-8")).get("intervals") or {}
    interval: dict[str, float] | None = intervals.get(metric)
    return interval


def write_results(results: Sequence[RowResult], about: dict[str, object], folder: Path) -> list[Path]:
    """`results.json` with everything, and `results.csv` with the table."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [result.as_dict(results[0]) for result in results]
    as_json = folder / "results.json"
    as_json.write_text(json.dumps(about | {"rows": lines}, indent=1) + "\n", encoding="utf-8")
    as_csv = folder / "results.csv"
    columns = [name for name in lines[0] if name not in ("options", "values", "intervals")]
    with as_csv.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return [as_json, as_csv]
