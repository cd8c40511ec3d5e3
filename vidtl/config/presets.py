"""Augmentation as published recipes have it: `augmentation.preset` names one, and keys given beside it override it.

A preset only fills in values where a configuration is read; what a run records are the values. In Python:
`dataclasses.replace(AUGMENTATION_PRESETS["vivit_ssv2"], flip_probability=0.5)`. What the recipes have besides (label
smoothing, stochastic depth, sampling, frame size) stands in other sections, and in `configs/`.

| preset                | recipe                                                                                     |
|-----------------------|--------------------------------------------------------------------------------------------|
| `vivit_kinetics`      | ViViT on Kinetics-400 and -600 (all sizes), and on Moments in Time                         |
| `vivit_ssv2`          | ViViT-L on Something-Something v2; with label smoothing 0.3, stochastic depth 0.3          |
| `vivit_epic_kitchens` | ViViT-L on EPIC-Kitchens-100; with label smoothing 0.2, stochastic depth 0.2               |
| `videomae_kinetics`   | VideoMAE fine-tuning on Kinetics-400; with label smoothing 0.1                             |
| `videomae_ssv2`       | the same on Something-Something v2, without mirror images                                  |
| `tsn`                 | Temporal Segment Networks: multi-scale crops                                               |
| `t2t_vit_imagenet`    | T2T-ViT on ImageNet, as one-frame clips; with label smoothing 0.1                          |
| `mini_vit_cifar10`    | TokenLearner's CIFAR-10 study: `clip.short_side` 52, `clip.frame_size` [48, 48]            |

Sources: scenic's `vivit` configurations, VideoMAE's fine-tuning scripts, mmaction2's TSN configurations, T2T-ViT's
README (its colour jitter has no effect, since timm leaves it out where RandAugment is on), the Keras notebooks.
Something-Something's classes tell left from right: `vivit_ssv2` makes no mirror images, though scenic's reader does.
"""

from dataclasses import replace

from vidtl.config.augmentation import AugmentationConfig

_VIVIT = AugmentationConfig(crop="jitter", jitter_range=(0.9, 1.33), flip_probability=0.5)

_VIDEOMAE = AugmentationConfig(
    repeats=2,
    crop="random_resized",
    area_range=(0.08, 1.0),
    aspect_range=(0.75, 4 / 3),
    flip_probability=0.5,
    rand_augment_layers=4,
    rand_augment_magnitude=7.0,
    rand_augment_std=0.5,
    rand_augment_space="timm",
    erase_probability=0.25,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
)

AUGMENTATION_PRESETS: dict[str, AugmentationConfig] = {
    "vivit_kinetics": replace(_VIVIT, colour_probability=0.8, grey_probability=0.1),
    "vivit_ssv2": replace(
        _VIVIT, flip_probability=0.0, rand_augment_layers=2, rand_augment_magnitude=20.0, mixup_alpha=0.3
    ),
    "vivit_epic_kitchens": replace(_VIVIT, rand_augment_layers=2, rand_augment_magnitude=15.0, mixup_alpha=0.1),
    "videomae_kinetics": _VIDEOMAE,
    "videomae_ssv2": replace(_VIDEOMAE, flip_probability=0.0),
    "tsn": AugmentationConfig(crop="multi_scale", crop_scales=(1.0, 0.875, 0.75, 0.66), flip_probability=0.5),
    "t2t_vit_imagenet": replace(_VIDEOMAE, repeats=1, rand_augment_layers=2, rand_augment_magnitude=9.0),
    "mini_vit_cifar10": AugmentationConfig(crop="jitter", jitter_range=(1.0, 1.0), flip_probability=0.5),
}
