"""The keys of `dataset.yaml`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidtl.config.checks import require
from vidtl.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """One split; all paths are relative to the root; annotation files may also lie beside `dataset.yaml`."""

    annotations: tuple[str, ...] = ()
    """Annotation files, read in this order; none if the folders of `videos` are the annotation."""
    videos: tuple[str, ...] = (".",)
    """Folders that are searched for videos, in this order."""
    replacements: tuple[str, ...] = ()
    """Folders whose videos are preferred to those of `videos`."""
    value: str = ""
    """Value of the column `split` in rows of this split, if there is such a column; default: its name."""
    part: tuple[float, float] = (0.0, 1.0)
    """Start and end of a part of those records, as shares, in a fixed random order; see `choose_part`."""

    def __post_init__(self) -> None:
        start, end = self.part
        fits = 0 <= start < end <= start + 1 and start < 1
        require(fits, "part", list(self.part), "two rising shares such as [0, 0.8], at most 1 apart")


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """A data set without its root."""

    folder: Path = Path()
    """Folder of the file."""
    name: str = ""
    """Default: name of the folder."""
    title: str = ""
    """Default: name of the folder."""
    format: str
    """A key of `READERS`."""
    labels: Literal["single", "multi"]
    splits: dict[str, SplitDescription]
    classes: str | None = None
    """File of class names, found as annotation files are; None: the sorted labels of all splits."""
    files: tuple[str, ...] = ()
    """Name patterns of the videos, tried in order; the last suffix may be `.*`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names of columns that differ from those of the format; `a + b` combines two."""
    entries: tuple[str, ...] = ()
    """Keys that lead to the entries of a JSON file."""
    separator: str = ";"
    """Separates several labels of a row."""
    group: str = ""
    """Column, or pattern of paths with `{group}`, of the recording or subject, which a `part` does not split."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other spellings of labels, with the class of each."""
    protocol: str = "center"
    """Default evaluation protocol."""
    fields: tuple[str, ...] = ()
    """Fields of a line of a list without a header."""
    frame_rate: float | None = None
    """Frames per second of folders of images, and of times in frames."""
    time_unit: Literal["seconds", "frames"] = "seconds"
    """Unit of the columns `start` and `end`."""
    path_prefix: str = ""
    """Beginning that paths of annotations lose."""
    expected: dict[str, int] = field(default_factory=dict)
    """Number of videos in the official annotation of each split."""

    @property
    def multi_label(self) -> bool:
        """True if a video may have several classes, or none."""
        return self.labels == "multi"

    def split(self, name: str) -> SplitDescription:
        """Return a split; UserError with the nearest name if there is none."""
        if name not in self.splits:
            raise UserError(f"data set {self.name!r} has no split {name!r}; {did_you_mean(name, self.splits)}")
        return self.splits[name]
