"""Data set, decoding, and the frames, size and value range of a clip."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices, require_each, setting

MOST_PIXELS = 2**28  # of a clip


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Videos of a run and their decoding."""

    dataset: str = setting("", "training", "scores")
    """Name of a folder in `datasets/`, or path of one with a `dataset.yaml`; '': that of the root, or its classes."""
    root: str = setting("data/toy", "scores")
    """Folder of the videos and annotation files, to which paths in `dataset.yaml` are relative. Without any, its class
    folders are enough: `train/CLASS/...` and `val/CLASS/...`, or `CLASS/...`, of which 20 % of the videos are drawn."""
    train_split: str = setting("train", "training")
    """Split of `dataset.yaml` to train on."""
    eval_split: str = setting("val", "scores")
    """Split of `dataset.yaml` to evaluate on; '' trains without evaluations, as do sets without the default split."""
    manifest: str = setting("auto", "rounding")
    """Result of `tools/prepare.py`: a file, its folder, `none`, or `auto` for the one in the root, if any. It saves a
    scan at each open, and training leaves out the files that it has as missing or broken; it changes no clip."""
    balance: Literal["none", "sampling", "loss"] = setting("none", "training")
    """Training on classes of unequal size. `sampling`: each epoch, of as many clips as before, has equally many of each
    class, with more clips of the same videos for small ones; a multi-label video counts for its rarest label. `loss`:
    weights inverse to the videos of each class, 1 on average over all videos; of positive targets for multi-label."""
    follow_links: bool = setting(True, "scores")
    """Read videos, and lists of the same hub repository, where links in the root lead out of it."""
    decoder: Literal["pyav", "decord", "torchcodec"] = setting("pyav", "training", "scores")
    """`pyav` is fast and exact. The others are RGB only and refuse files that they misread; `decord` exists on x86-64
    Linux only, `torchcodec` is an extra that needs FFmpeg's libraries."""
    pixel_format: Literal["planar", "rgb"] = setting("planar", "training", "scores")
    """Format of frames on the way to the device: planar YUV 4:2:0 (1.5 bytes a pixel, converted there) or RGB (3)."""
    num_workers: int = setting(2, "speed")
    """Decoding processes per training process; 0 is taken as 1, so that no video can end the run."""
    read_timeout_s: float = setting(60.0, "operation")
    """Seconds of CPU time without a new frame after which a video counts as unreadable; 20 times as much wall time."""
    allow_empty_classes: bool = setting(False, "operation")
    """Training: go on if all videos of a class are missing or unreadable."""
    max_unreadable_share: float = setting(0.05, "operation")
    """Training: the run stops if a larger share of the requested videos cannot be read. Each is replaced by another."""

    def __post_init__(self) -> None:
        require_choices(self, "data")
        require_each(self, "data", "num_workers", lambda value: 0 <= value <= 1024, "0 to 1024")
        require_each(self, "data", "read_timeout_s", lambda value: 0 < value <= 86400, "above 0, at most 86400 seconds")
        require_each(self, "data", "max_unreadable_share", lambda value: 0 <= value <= 1, "0 to 1")
        formats = ("planar", "rgb") if self.decoder == "pyav" else ("rgb",)
        allowed = f"'rgb' with data.decoder {self.decoder}, which delivers no planes"
        require_each(self, "data", "pixel_format", formats.__contains__, allowed)


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Frames of a video that form a clip, their size and their range of values."""

    num_frames: int = 32
    """Frames per clip."""
    sampling: Literal["random_span", "segments"] = "random_span"
    """Training. `random_span`: frames `stride` apart from a random start; `segments`: one random frame of each of
    `num_frames` equal segments of the video (TSN; SSv2), and in the `center` protocol the central one."""
    stride: int = 2
    """Distance between consecutive frames of a clip, in frames of the video (or of the video at `target_fps`)."""
    target_fps: float = 0.0
    """Frame rate to resample videos to before `stride` applies; 0 keeps the file's own frames."""
    frame_size: tuple[int, int] = (224, 224)
    """Height and width of the model's input in pixels."""
    short_side: int = 256
    """Evaluation: the shorter side is resized to this before cropping to `frame_size`; 0 shows the whole picture,
    squeezed to `frame_size` (in training with `augmentation.crop` center)."""
    background: bool = False
    """For fixed cameras: ViViT sees log energies of the differences to the background, the last frame of each clip, and
    between frames. The background is a median of the whole file, so of later frames too; it needs no labels."""
    short_video: Literal["loop", "hold"] = "loop"
    """Videos shorter than a clip restart from their first frame, or repeat their last one."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from RGB in [0, 1]; ViViT's range [-1, 1] is mean 0.5 and std 0.5."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Divides RGB in [0, 1] after the mean is subtracted."""

    @property
    def input_frames(self) -> int:
        """Frames of a clip on its way to the model, with the background."""
        return self.num_frames + self.background

    def __post_init__(self) -> None:
        require_choices(self, "clip")
        require_each(self, "clip", "num_frames stride", lambda value: value >= 1, "1 or more")
        require_each(self, "clip", "target_fps", lambda value: value >= 0, "0 (the file's own) or more")
        pixels = self.input_frames * self.frame_size[0] * self.frame_size[1]
        require(pixels <= MOST_PIXELS, "clip", f"{pixels} pixels", f"at most {MOST_PIXELS} (frames x height x width)")
        even = all(side >= 2 and side % 2 == 0 for side in self.frame_size)
        require(even, "clip.frame_size", self.frame_size, "even sides of 2 pixels or more")
        largest = max(self.frame_size)
        allowed = f"0 (the whole picture), or at least the larger side of clip.frame_size, {largest}"
        require_each(self, "clip", "short_side", lambda value: value == 0 or value >= largest, allowed)
        require_each(self, "clip", "std", lambda values: min(values) > 0, "values above 0")
        if self.background:
            require_each(self, "clip", "num_frames", lambda value: value > 1, "2 or more with clip.background")
            require_each(self, "clip", "short_side", lambda value: value == 0, "0 with clip.background")
            require_each(self, "clip", "std", lambda values: set(values) == {1}, "1, 1, 1 with clip.background")
