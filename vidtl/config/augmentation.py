"""Random changes to training clips."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes to training clips; each is the same for all frames of a clip. Evaluation uses none of them."""

    crop: Literal["jitter", "random_resized", "centre"] = "jitter"
    """`jitter`: ViViT's random scale then random crop; `random_resized`: random area and aspect; `centre`."""
    jitter_range: tuple[float, float] = (0.9, 1.33)
    """`jitter`: height and width are scaled by two factors drawn independently from this range (ViViT appendix)."""
    area_range: tuple[float, float] = (0.3, 1.0)
    """`random_resized`: share of the frame's area that the crop covers."""
    aspect_range: tuple[float, float] = (0.75, 1.333)
    """`random_resized`: width divided by height of the crop, drawn log-uniformly."""
    flip_probability: float = 0.5
    """Chance of a mirror image; set 0 where left and right are part of the class."""
    colour_probability: float = 0.0
    """Chance of random brightness, contrast, saturation and hue (ViViT's Kinetics recipes: 0.8)."""
    brightness: float = 0.125
    """Largest change of brightness, as a share of the full range."""
    contrast: float = 0.4
    """Largest relative change of contrast."""
    saturation: float = 0.4
    """Largest relative change of saturation."""
    hue: float = 0.2
    """Largest rotation of hue, as a share of the colour circle."""
    grey_probability: float = 0.0
    """Chance of dropping all colour (ViViT's Kinetics recipes: 0.1)."""

    def __post_init__(self) -> None:
        for name in ("flip_probability", "colour_probability", "grey_probability"):
            require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        for name in ("jitter_range", "area_range", "aspect_range"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"augmentation.{name}", (low, high), "two rising values above 0")
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        require(0 <= self.hue <= 0.5, "augmentation.hue", self.hue, "0 to 0.5")
        require(self.area_range[1] <= 1, "augmentation.area_range", self.area_range, "at most 1")
