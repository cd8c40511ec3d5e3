"""Random changes to training clips, and those of published recipes."""

from dataclasses import dataclass, replace
from typing import Literal

from vidtl.config.checks import require, require_choices, require_each


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes to training clips; each is the same for all frames of a clip. Evaluation uses none of them."""

    repeats: int = 1
    """Clips of each video in a batch, each with its own span, crop and changes, from one pass over the file (repeated
    augmentation). The batch counts clips; an epoch visits each video once and so has `repeats` times as many clips."""
    crop: Literal["jitter", "random_resized", "multi_scale", "center"] = "jitter"
    """`jitter`: random scale, then crop (ViViT); `random_resized`: random area and aspect; `multi_scale`: TSN's."""
    jitter_range: tuple[float, float] = (0.9, 1.33)
    """`jitter`: range of the scale of height and of width, drawn independently (ViViT appendix)."""
    area_range: tuple[float, float] = (0.3, 1.0)
    """`random_resized`: share of the frame's area that the crop covers."""
    aspect_range: tuple[float, float] = (0.75, 1.333)
    """`random_resized`: width divided by height of the crop, drawn log-uniformly."""
    flip_probability: float = 0.5
    """Probability of a horizontal flip; set 0 if left and right are part of the class."""
    vertical_flip_probability: float = 0.0
    """Probability of a vertical flip, for cameras that look straight down."""
    color_jitter: tuple[float, float, float, float] = (0.125, 0.4, 0.4, 0.2)
    """Largest change of brightness (of the full range), contrast, saturation (relative) and hue (of the circle)."""
    color_jitter_probability: float = 0.0
    """Probability of color jitter (ViViT's Kinetics recipes: 0.8)."""
    grayscale_probability: float = 0.0
    """Probability of conversion to grayscale (ViViT's Kinetics recipes: 0.1)."""
    rand_augment_num_ops: int = 0
    """RandAugment: operations drawn for each clip, applied one after the other; 0 is off (ViViT on SSv2: 2)."""
    rand_augment_magnitude: float = 9.0
    """RandAugment: strength; the full range is 0 to 10, more extrapolates with the `vivit` operations only."""
    rand_augment_std: float = 0.0
    """RandAugment: standard deviation of normal noise on the magnitude of each operation (`mstd` of timm)."""
    rand_augment_space: Literal["vivit", "timm"] = "vivit"
    """`vivit`: color operations and cut-out, always applied; `timm`: color and geometry, each applied with probability
    0.5 and stronger with rising magnitude, as `rand-m9-mstd0.5-inc1`."""
    random_erasing_probability: float = 0.0
    """Probability that noise replaces a box of the clip, 2 to 33 % of the frame (`pixel` mode of timm)."""
    mixup_alpha: float = 0.0
    """MixUp: the share of each clip's own pixels and labels is drawn from Beta(alpha, alpha) for a batch; 0 is off."""
    cutmix_alpha: float = 0.0
    """CutMix: the area outside the box of another clip is drawn from Beta(alpha, alpha); 0 is off. With `mixup_alpha`
    also above 0, half of the batches use CutMix."""

    @property
    def mixes(self) -> bool:
        """MixUp or CutMix is on."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def __post_init__(self) -> None:
        require_choices(self, "augmentation")
        require_each(self, "augmentation", "repeats", lambda value: value >= 1, "1 or more")
        names = "flip_probability vertical_flip_probability color_jitter_probability"
        names += " grayscale_probability random_erasing_probability"
        require_each(self, "augmentation", names, lambda value: 0 <= value <= 1, "0 to 1")
        names = "rand_augment_num_ops rand_augment_std mixup_alpha cutmix_alpha"
        require_each(self, "augmentation", names, lambda value: value >= 0, "0 or more")
        names = "jitter_range area_range aspect_range"
        require_each(self, "augmentation", names, lambda pair: 0 < pair[0] <= pair[1], "two rising values above 0")
        require_each(self, "augmentation", "area_range", lambda pair: pair[1] <= 1, "at most 1")
        *relative, hue = self.color_jitter
        in_range = all(0 <= value <= 1 for value in relative) and 0 <= hue <= 0.5
        allowed = "[brightness, contrast, saturation, hue], 0 to 1 each, hue 0 to 0.5"
        require(in_range, "augmentation.color_jitter", self.color_jitter, allowed)
        limit = 30 if self.rand_augment_space == "vivit" else 10
        allowed = f"0 to {limit} with the operations of {self.rand_augment_space}"
        require_each(self, "augmentation", "rand_augment_magnitude", lambda value: 0 <= value <= limit, allowed)


_VIVIT = AugmentationConfig(crop="jitter", jitter_range=(0.9, 1.33), flip_probability=0.5)

_VIDEOMAE = AugmentationConfig(
    repeats=2,
    crop="random_resized",
    area_range=(0.08, 1.0),
    aspect_range=(0.75, 4 / 3),
    flip_probability=0.5,
    rand_augment_num_ops=4,
    rand_augment_magnitude=7.0,
    rand_augment_std=0.5,
    rand_augment_space="timm",
    random_erasing_probability=0.25,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
)

AUGMENTATION_PRESETS: dict[str, AugmentationConfig] = {
    # ViViT (scenic) on Kinetics-400 and -600 in all sizes, and on Moments in Time
    "vivit_kinetics": replace(_VIVIT, color_jitter_probability=0.8, grayscale_probability=0.1),
    # ViViT-L on Something-Something v2, with label smoothing and stochastic depth 0.3; no flips, unlike scenic's reader
    "vivit_ssv2": replace(
        _VIVIT, flip_probability=0.0, rand_augment_num_ops=2, rand_augment_magnitude=20.0, mixup_alpha=0.3
    ),
    # ViViT-L on EPIC-Kitchens-100, with label smoothing and stochastic depth 0.2
    "vivit_epic_kitchens": replace(_VIVIT, rand_augment_num_ops=2, rand_augment_magnitude=15.0, mixup_alpha=0.1),
    # VideoMAE's fine-tuning scripts, with label smoothing 0.1
    "videomae_kinetics": _VIDEOMAE,
    "videomae_ssv2": replace(_VIDEOMAE, flip_probability=0.0),
    # Temporal Segment Networks (mmaction2)
    "tsn": AugmentationConfig(crop="multi_scale", flip_probability=0.5),
    # T2T-ViT on ImageNet, with label smoothing 0.1; timm drops its color jitter with RandAugment
    "t2t_vit_imagenet": replace(_VIDEOMAE, repeats=1, rand_augment_num_ops=2, rand_augment_magnitude=9.0),
    # TokenLearner's CIFAR-10 study (Keras notebooks), with clip.short_side 52 and clip.frame_size [48, 48]
    "mini_vit_cifar10": AugmentationConfig(crop="jitter", jitter_range=(1.0, 1.0), flip_probability=0.5),
}
"""Recipes that `augmentation.preset` names: values for keys that are not given beside it; runs record the values."""
