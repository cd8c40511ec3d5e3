"""Augmentation of published recipes: `augmentation.preset` names one, and keys given beside it override it.

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

from dataclasses import replace

from vidtl.config.augmentation import AugmentationConfig

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
