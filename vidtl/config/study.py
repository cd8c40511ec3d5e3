"""A study: one experiment in several variants, each from several seeds."""

import re
from dataclasses import dataclass, field
from typing import Literal

from vidtl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One variant of the experiment, and one line of the study's table."""

    name: str
    """What the table calls it; also the name of its folder, with hyphens for all but letters, digits and dots."""
    options: dict[str, bool | int | float | str | list[int] | list[float] | None]
    """What differs from the experiment, by dotted key; `{}` for the experiment as it is."""
    seeds: list[int]
    """`training.seed` of its runs."""
    published: float | None = None
    """The value in the source, in the unit of the metric (0 to 1)."""

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.").lower()

    def __post_init__(self) -> None:
        require(bool(self.folder), "name", self.name, "a name with a letter or a digit")
        require(bool(self.seeds), "seeds", self.seeds, "one seed or more")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "each seed once")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What is varied, and how a run is judged."""

    title: str
    """Heading of the table and of the figure."""
    experiment: str
    """Configuration file of the experiment, relative to the folder of the study's file."""
    options: dict[str, bool | int | float | str | list[int] | list[float] | None] = field(default_factory=dict)
    """What differs from the experiment in all rows, by dotted key."""
    rows: list[StudyRow]
    """The variants; the first one is what multiply-adds and times are compared with."""
    metric: Literal["top1", "mAP"] = "top1"
    """Metric of the table, one of those in `metrics.json`."""
    checkpoint: Literal["best", "last"] = "last"
    """Which checkpoint of a run is judged: the one that was best on `data.eval_split`, or the last."""
    judged_on: str = "val"
    """Split that the checkpoint is judged on."""
    batch_size: int = 32
    """Clips per step where the time of a step is measured."""

    def __post_init__(self) -> None:
        require(bool(self.rows), "rows", self.rows, "one row or more")
        folders = [row.folder for row in self.rows]
        twice = [row.name for row in self.rows if folders.count(row.folder) > 1]
        require(not twice, "rows.name", twice, "names that differ in letters or digits")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
