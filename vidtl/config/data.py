"""Which videos, and how they are read."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices, setting


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which videos, and how they are read."""

    dataset: str = setting("toy", "training", "scores")
    """Name of a folder under `datasets/`, or the path of any folder that holds a `dataset.yaml`."""
    root: str = setting("data/toy", "scores")
    """Folder that holds the annotation files and the videos; paths in `dataset.yaml` are relative to it."""
    train_split: str = setting("train", "training")
    """Split of `dataset.yaml` to train on."""
    eval_split: str = setting("val", "scores")
    """Split of `dataset.yaml` to evaluate on."""
    manifest: str = setting("auto", "rounding")
    """What `tools/prepare.py` found out about the files: a file, the folder it is in, `none`, or `auto`: the one in the
    root if there is one. It spares a scan at each open and the attempts to read broken files, and changes no clip."""
    decoder: Literal["pyav", "decord", "torchcodec"] = setting("pyav", "training", "scores")
    """Decoding library. `pyav` is the fast and exact one. The others give RGB only and refuse files that they misread:
    `decord` exists on x86-64 Linux only, `torchcodec` is an extra that needs FFmpeg's libraries."""
    pixel_format: Literal["planar", "rgb"] = setting("planar", "training", "scores")
    """How frames travel to the device: planar YUV 4:2:0 (1.5 bytes a pixel, converted there) or RGB (3 bytes)."""
    num_workers: int = setting(2, "speed")
    """Decoding processes per training process; 0 decodes in the training process itself."""
    prefetch_batches: int = setting(2, "speed")
    """Batches that each worker prepares ahead."""
    worker_timeout_s: float = setting(120.0, "operation")
    """Seconds to wait for a batch before the run stops and says which videos were being read."""
    max_substitutions: int = setting(10, "operation")
    """Training only: how many other videos may be tried in the place of one that cannot be read. Those of the same
    classes come first; missing files and those that the manifest knows to be broken do not count."""
    max_unreadable_share: float = setting(0.05, "operation")
    """Training only: the run stops once a larger share of the videos asked for could not be read."""

    def __post_init__(self) -> None:
        require_choices(self, "data")
        require(self.num_workers >= 0, "data.num_workers", self.num_workers, "0 or more")
        require(self.prefetch_batches >= 1, "data.prefetch_batches", self.prefetch_batches, "1 or more")
        require(self.worker_timeout_s > 0, "data.worker_timeout_s", self.worker_timeout_s, "more than 0 seconds")
        require(self.max_substitutions >= 0, "data.max_substitutions", self.max_substitutions, "0 or more")
        require(0 <= self.max_unreadable_share <= 1, "data.max_unreadable_share", self.max_unreadable_share, "0 to 1")
        require(
            self.decoder == "pyav" or self.pixel_format == "rgb",
            "data.pixel_format",
            self.pixel_format,
            f"'rgb' with data.decoder {self.decoder}, which delivers no planes",
        )
