"""Random changes to training clips, and those of published recipes.

Augmentation of published recipes: `augmentation.preset` names one, and keys given beside it override it.

A preset fills in values when a configuration is read; a run records the values. In Python:
`dataclasses.replace(AUGMENTATION_PRESETS["vivit_ssv2"], flip_probability=0.5)`. Further settings of the recipes (label
smoothing, stochastic depth, sampling, frame size) are in other sections, and in `configs/`.

| preset                | recipe                                                                                     |
|-----------------------|--------------------------------------------------------------------------------------------|
| `vivit_kinetics`      | ViViT on Kinetics-400 and -600 (all sizes), and on Moments in Time                         |
| `vivit_ssv2`          | ViViT-L on Something-Something v2; with label smoothing 0.3, stochastic depth 0.3          |
| `vivit_epic_kitchens` | ViViT-L on EPIC-Kitchens-100; with label smoothing 0.2, stochastic depth 0.2               |
| `videomae_kinetics`   | VideoMAE fine-tuning on Kinetics-400; with label smoothing 0.1                             |
| `videomae_ssv2`       | the same on Something-Something v2, without flips                                          |
| `tsn`                 | Temporal Segment Networks: multi-scale crops                                               |
| `t2t_vit_imagenet`    | T2T-ViT on ImageNet, as one-frame clips; with label smoothing 0.1                          |
| `mini_vit_cifar10`    | TokenLearner's CIFAR-10 study: `clip.short_side` 52, `clip.frame_size` [48, 48]            |

Sources: scenic's `vivit` configurations, VideoMAE's fine-tuning scripts, mmaction2's TSN configurations, T2T-ViT's
README (its color jitter has no effect, since timm drops it if RandAugment is on), the Keras notebooks.
Something-Something's classes depend on left and right: `vivit_ssv2` does not flip, although scenic's reader does.
"""

from dataclasses import dataclass, replace
from typing import Literal

from vidtl.config.checks import require, require_choices


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes to training clips; each is the same for all frames of a clip. Evaluation uses none of them."""

    repeats: int = 1
    """Clips of each video in a batch, each with its own span, crop and changes, from one pass over the file (repeated
    augmentation). The batch counts clips; an epoch visits each video once and so has `repeats` times as many clips."""
    crop: Literal["jitter", "random_resized", "multi_scale", "center"] = "jitter"
    """`jitter`: ViViT's random scale then random crop; `random_resized`: random area and aspect; `multi_scale`: TSN's
    sizes at fixed places; `center`."""
    jitter_range: tuple[float, float] = (0.9, 1.33)
    """`jitter`: range of the scale of height and of width, drawn independently (ViViT appendix)."""
    area_range: tuple[float, float] = (0.3, 1.0)
    """`random_resized`: share of the frame's area that the crop covers."""
    aspect_range: tuple[float, float] = (0.75, 1.333)
    """`random_resized`: width divided by height of the crop, drawn log-uniformly."""
    flip_probability: float = 0.5
    """Probability of a horizontal flip; set 0 if left and right are part of the class."""
    color_jitter: tuple[float, float, float, float] = (0.125, 0.4, 0.4, 0.2)
    """Largest change of brightness (share of the full range), contrast, saturation (relative) and hue (share of the
    color circle)."""
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

    def __post_init__(self) -> None:
        require_choices(self, "augmentation")
        require(self.repeats >= 1, "augmentation.repeats", self.repeats, "1 or more")
        for name in (
            "flip_probability",
            "color_jitter_probability",
            "grayscale_probability",
            "random_erasing_probability",
        ):
            require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", getattr(self, name), "0 to 1")
        for name in ("jitter_range", "area_range", "aspect_range"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"augmentation.{name}", (low, high), "two rising values above 0")
        for name in ("rand_augment_num_ops", "rand_augment_std", "mixup_alpha", "cutmix_alpha"):
            require(getattr(self, name) >= 0, f"augmentation.{name}", getattr(self, name), "0 or more")
        *relative, hue = self.color_jitter
        require(
            all(0 <= value <= 1 for value in relative) and 0 <= hue <= 0.5,
            "augmentation.color_jitter",
            self.color_jitter,
            "[brightness, contrast, saturation, hue], 0 to 1 each, hue 0 to 0.5",
        )
        require(self.area_range[1] <= 1, "augmentation.area_range", self.area_range, "at most 1")
        limit = 30 if self.rand_augment_space == "vivit" else 10
        require(
            0 <= self.rand_augment_magnitude <= limit,
            "augmentation.rand_augment_magnitude",
            self.rand_augment_magnitude,
            f"0 to {limit} with the operations of {self.rand_augment_space}",
        )


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
    "vivit_kinetics": replace(_VIVIT, color_jitter_probability=0.8, grayscale_probability=0.1),
    "vivit_ssv2": replace(
        _VIVIT, flip_probability=0.0, rand_augment_num_ops=2, rand_augment_magnitude=20.0, mixup_alpha=0.3
    ),
    "vivit_epic_kitchens": replace(_VIVIT, rand_augment_num_ops=2, rand_augment_magnitude=15.0, mixup_alpha=0.1),
    "videomae_kinetics": _VIDEOMAE,
    "videomae_ssv2": replace(_VIDEOMAE, flip_probability=0.0),
    "tsn": AugmentationConfig(crop="multi_scale", flip_probability=0.5),
    "t2t_vit_imagenet": replace(_VIDEOMAE, repeats=1, rand_augment_num_ops=2, rand_augment_magnitude=9.0),
    "mini_vit_cifar10": AugmentationConfig(crop="jitter", jitter_range=(1.0, 1.0), flip_probability=0.5),
}
