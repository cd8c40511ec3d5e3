"""Frames, size and value range of a clip."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices


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
    """Evaluation: the shorter side is resized to this before cropping to `frame_size`."""
    short_video: Literal["loop", "hold"] = "loop"
    """Videos shorter than a clip restart from their first frame, or repeat their last one."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from RGB in [0, 1]; ViViT's range [-1, 1] is mean 0.5 and std 0.5."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Divides RGB in [0, 1] after the mean is subtracted."""

    def __post_init__(self) -> None:
        require_choices(self, "clip")
        require(self.num_frames >= 1, "clip.num_frames", self.num_frames, "1 or more")
        require(self.stride >= 1, "clip.stride", self.stride, "1 or more")
        require(self.target_fps >= 0, "clip.target_fps", self.target_fps, "0 (the file's own) or more")
        require(
            all(side >= 2 and side % 2 == 0 for side in self.frame_size),
            "clip.frame_size",
            self.frame_size,
            "even sides of 2 pixels or more",
        )
        require(
            self.short_side >= max(self.frame_size),
            "clip.short_side",
            self.short_side,
            f"at least the larger side of clip.frame_size, {max(self.frame_size)}",
        )
        require(all(s > 0 for s in self.std), "clip.std", self.std, "values above 0")
