"""Settings of a study: variants of one experiment, each trained from several seeds."""

import re
from dataclasses import dataclass, field
from typing import Literal

from vidtl.config.checks import require

Options = dict[str, bool | int | float | str | list[int] | list[float] | None]


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One variant of the experiment; one line of the table."""

    name: str
    """Name in the table. The folder of the runs has hyphens in place of all but letters, digits and dots."""
    options: Options
    """Settings that differ from the experiment, by dotted key; `{}` for none."""
    seeds: list[int]
    """`training.seed` of each run."""
    published: float | None = None
    """Value in the source, in the unit of the metric (0 to 1)."""

    @property
    def folder(self) -> str:
        """Name of the folder of the runs."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.").lower()

    def __post_init__(self) -> None:
        require(bool(self.folder), "name", self.name, "a name with a letter or a digit")
        require(bool(self.seeds), "seeds", self.seeds, "one seed or more")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "each seed once")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study file; see `configs/studies/`."""

    title: str
    """Heading of the table and of the figure."""
    experiment: str
    """Configuration file of the experiment, relative to the folder of the study file."""
    options: Options = field(default_factory=dict)
    """Settings of all rows that differ from the experiment, by dotted key."""
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
