"""Random changes to training clips."""

from dataclasses import dataclass
from typing import Literal

from vidtl.config.checks import require, require_choices


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes to training clips; each is the same for all frames of a clip. Evaluation uses none of them."""

    repeats: int = 1
    """Clips of each video in a batch, each with its own span, crop and changes, from one pass over the file (repeated
    augmentation). The batch counts clips; an epoch visits each video once and so has `repeats` times as many clips."""
    crop: Literal["jitter", "random_resized", "multi_scale", "centre"] = "jitter"
    """`jitter`: ViViT's random scale then random crop; `random_resized`: random area and aspect; `multi_scale`: TSN's
    sides from `crop_scales` at fixed places; `centre`."""
    jitter_range: tuple[float, float] = (0.9, 1.33)
    """`jitter`: height and width are scaled by two factors drawn independently from this range (ViViT appendix)."""
    area_range: tuple[float, float] = (0.3, 1.0)
    """`random_resized`: share of the frame's area that the crop covers."""
    aspect_range: tuple[float, float] = (0.75, 1.333)
    """`random_resized`: width divided by height of the crop, drawn log-uniformly."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """`multi_scale`: sides of the crop as shares of the shorter side; height and width differ by one step at most."""
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
    rand_augment_layers: int = 0
    """RandAugment: operations drawn for each clip, one after the other; 0 is none (ViViT on SSv2: 2)."""
    rand_augment_magnitude: float = 9.0
    """RandAugment: strength on the scale whose full range is 10; more extrapolates with the `vivit` operations only."""
    rand_augment_std: float = 0.0
    """RandAugment: standard deviation of normal noise on the magnitude of each operation (`mstd` of timm)."""
    rand_augment_space: Literal["vivit", "timm"] = "vivit"
    """`vivit`: colour operations and cut-out, always applied; `timm`: colour and geometry, each applied half of the
    time and stronger with rising magnitude, as `rand-m9-mstd0.5-inc1`."""
    erase_probability: float = 0.0
    """Chance that noise replaces a box of the clip, 2 to 33 % of the frame (random erasing, `pixel` mode of timm)."""
    mixup_alpha: float = 0.0
    """MixUp: the share of each clip's own pixels and labels is drawn from Beta(alpha, alpha) for a batch; 0 is off."""
    cutmix_alpha: float = 0.0
    """CutMix: the area outside the box that another clip fills is drawn from Beta(alpha, alpha); 0 is off."""
    mix_probability: float = 1.0
    """Chance that a batch is mixed at all, where MixUp or CutMix is on."""
    cutmix_share: float = 0.5
    """Where both are on: chance that a mixed batch is mixed by CutMix (`switch_prob` of timm)."""

    def __post_init__(self) -> None:
        require_choices(self, "augmentation")
        require(self.repeats >= 1, "augmentation.repeats", self.repeats, "1 or more")
        for name in (
            "flip_probability",
            "colour_probability",
            "grey_probability",
            "erase_probability",
            "mix_probability",
            "cutmix_share",
        ):
            require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        for name in ("jitter_range", "area_range", "aspect_range"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"augmentation.{name}", (low, high), "two rising values above 0")
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        for name in ("rand_augment_layers", "rand_augment_std", "mixup_alpha", "cutmix_alpha"):
            require(getattr(self, name) >= 0, f"augmentation.{name}", getattr(self, name), "0 or more")
        require(0 <= self.hue <= 0.5, "augmentation.hue", self.hue, "0 to 0.5")
        require(self.area_range[1] <= 1, "augmentation.area_range", self.area_range, "at most 1")
        require(
            len(self.crop_scales) > 0 and all(0 < scale <= 1 for scale in self.crop_scales),
            "augmentation.crop_scales",
            self.crop_scales,
            "one or more values above 0, at most 1",
        )
        limit = 30 if self.rand_augment_space == "vivit" else 10
        require(
            0 <= self.rand_augment_magnitude <= limit,
            "augmentation.rand_augment_magnitude",
            self.rand_augment_magnitude,
            f"0 to {limit} with the operations of {self.rand_augment_space}",
        )
