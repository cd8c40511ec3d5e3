"""Augmentation and mixing: each change has its effect, clips and padding stay independent, keys determine the draws."""

import dataclasses

import numpy as np
import pytest
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.augmentation import (
    Augmentation,
    ColorJitter,
    Erasure,
    Mixing,
    augment,
    draw_augmentation,
    draw_mixing,
    erase,
    mix,
)
from vidtl.data.rand_augment import Operation
from vidtl.runtime.seeding import generator
from vidtl.training.losses import Loss, find_loss
from vidtl.video import Box

SIZE = (24, 32)
TARGETS = torch.eye(5)
MIXUP, CUTMIX = AugmentationConfig(mixup_alpha=0.8), AugmentationConfig(cutmix_alpha=1.0)
BOTH = AugmentationConfig(mixup_alpha=0.8, cutmix_alpha=1.0)


@pytest.fixture
def rgb():
    return torch.rand(3, 4, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def jittered(rgb, *colors):
    return augment(rgb, [Augmentation(color=color) for color in colors])


def test_each_clip_gets_its_own_change(rgb):
    assert augment(rgb, [Augmentation()] * 3) is rgb
    clips = [Augmentation(flip=True), Augmentation(color=ColorJitter(saturation=0)), Augmentation()]
    out = augment(rgb, clips)
    torch.testing.assert_close(out[0], rgb[0].flip(-1), atol=1e-6, rtol=0)
    assert (out[1].amax(dim=1) - out[1].amin(dim=1)).max() < 1e-5  # grayscale: all channels equal
    torch.testing.assert_close(out[2], rgb[2], atol=1e-6, rtol=0)
    out = augment(rgb, [Augmentation(vertical_flip=True), Augmentation(True, vertical_flip=True), Augmentation()])
    assert torch.equal(out, torch.stack([rgb[0].flip(-2), rgb[1].flip(-1, -2), rgb[2]]))
    # RandAugment comes before the colors.
    inverted = Augmentation(color=ColorJitter(brightness=0.1), operations=(Operation("invert"),))
    out = augment(rgb, [Augmentation(), inverted, Augmentation()])
    levels = (rgb[1] * 255).round() / 255
    torch.testing.assert_close(out[1], (1 - levels + 0.1).clamp(0, 1), atol=1e-5, rtol=0)


def test_hue_rotates_colors_and_keeps_luma(rgb):
    muted = rgb * 0.2 + 0.4  # far from the limits of the range, where clipping would change the luma
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    out = jittered(muted, *[ColorJitter(hue=0.3)] * 3)
    assert (out - muted).abs().mean() > 0.01
    torch.testing.assert_close((out * luma).sum(2), (muted * luma).sum(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(jittered(muted, *[ColorJitter(hue=1.0)] * 3), muted, atol=1e-4, rtol=0)


def test_contrast_keeps_the_mean_and_brightness_moves_it(rgb):
    out = jittered(rgb, ColorJitter(contrast=0.5), ColorJitter(brightness=0.1), ColorJitter())
    torch.testing.assert_close(out[0].mean((2, 3)), rgb[0].mean((2, 3)), atol=1e-6, rtol=0)
    assert out[0].std() < rgb[0].std() * 0.6
    assert (out[1] - rgb[1]).mean() > 0.08
    assert 0 <= out.min() <= out.max() <= 1
    still = augment(rgb[:, :1].expand(-1, 4, -1, -1, -1), [Augmentation(True, ColorJitter(0.1, 1.3, 1.2, 0.1))] * 3)
    assert (still - still[:, :1]).abs().max() == 0  # the same change in all frames


def test_draws_follow_the_probabilities_and_the_key():
    jitter = {"color_jitter": (0.1, 0.3, 0.4, 0.2), "color_jitter_probability": 0.8}
    config = AugmentationConfig(flip_probability=0.5, grayscale_probability=0.1, **jitter)
    draws = [draw_augmentation(config, SIZE, generator(0, index)) for index in range(800)]
    assert draws[7] == draw_augmentation(config, SIZE, generator(0, 7))
    brightness, contrast, saturation, hue = np.array([draw.color for draw in draws]).T
    assert abs(np.mean([draw.flip for draw in draws]) - 0.5) < 0.05
    assert abs((brightness != 0).mean() - 0.8) < 0.05
    assert abs((saturation == 0).mean() - 0.1) < 0.03
    changes = (brightness, contrast - 1, saturation[saturation > 0] - 1, hue)
    for values, limit in zip(changes, config.color_jitter, strict=True):
        assert 0.9 * limit < np.abs(values).max() <= limit


@pytest.mark.parametrize(
    ("setting", "value", "changed"),
    [
        ("flip_probability", 0.0, "flip"),
        ("vertical_flip_probability", 1.0, "vertical_flip"),
        ("color_jitter_probability", 1.0, "color"),
        ("rand_augment_num_ops", 3, "operations"),
        ("random_erasing_probability", 1.0, "erasure"),
    ],
)
def test_enabling_a_change_leaves_the_others(setting, value, changed):
    plain = AugmentationConfig(
        flip_probability=0.5, color_jitter_probability=0.5, grayscale_probability=0.3, random_erasing_probability=0.5
    )
    configs = (plain, dataclasses.replace(plain, **{setting: value}))
    for index in range(20):
        first, second = (draw_augmentation(each, SIZE, generator(0, index))._asdict() for each in configs)
        assert {name for name in first if first[name] != second[name]} <= {changed}


def test_erasing_puts_noise_into_the_same_box_of_all_frames():
    neutral = torch.full((3, 16, 3, 40, 40), 7.0)
    clips = [Augmentation(erasure=Erasure(Box(4, 10, 20, 25), seed)) for seed in (5, 6)] + [Augmentation()]
    out = erase(neutral.clone(), clips)
    changed = out != 7
    assert changed[:2, :, :, 4:24, 10:35].all()
    assert changed.sum() == 2 * 16 * 3 * 20 * 25
    noise = out[:, :, :, 4:24, 10:35]
    assert abs(noise[:2].mean()) < 0.02
    assert abs(noise[:2].std() - 1) < 0.02
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0, 0], noise[0, 1])
    alone = erase(neutral[:1].clone(), clips[1:2])
    assert torch.equal(alone[0], out[1])  # independent of the other clips


def test_erased_boxes_follow_the_published_ranges():
    config = AugmentationConfig(random_erasing_probability=0.25)
    drawn = [draw_augmentation(config, (112, 112), generator(1, index)).erasure for index in range(1500)]
    boxes = np.array([erasure.box for erasure in drawn if erasure])
    assert abs(len(boxes) / 1500 - 0.25) < 0.03
    assert len({erasure.seed for erasure in drawn if erasure}) == len(boxes)
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 112**2, boxes[:, 2] / boxes[:, 3]
    assert 0.018 < areas.min() < 0.03 < 0.3 < areas.max() < 0.35
    assert 0.27 < aspects.min() < 0.5 < 2 < aspects.max() < 3.7
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 112).all()


@pytest.fixture
def clips():
    return torch.randn(5, 3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def drawn(config, count, weights=(1, 1, 1, 1, 1)):
    return [draw_mixing(config, SIZE, list(weights), 3, step, 0, 0) for step in range(count)]


def test_mixup_adds_clips_and_labels_by_one_share(clips):
    for mixing in drawn(MIXUP, 10):
        assert mixing.box is None
        out, mixed = mix(clips, TARGETS, mixing)
        share = mixing.own_share
        torch.testing.assert_close(out, share * clips + (1 - share) * clips.flip(0))
        torch.testing.assert_close(mixed, share * TARGETS + (1 - share) * TARGETS.flip(0))
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(5))
        assert torch.equal(out[2], clips[2])  # the clip in the middle is its own partner


def test_cutmix_shares_labels_by_area(clips):
    before, sizes = clips.clone(), set()
    for mixing in drawn(CUTMIX, 40):
        top, left, height, width = mixing.box
        assert 0 <= top <= top + height <= SIZE[0]
        assert 0 <= left <= left + width <= SIZE[1]
        out, mixed = mix(clips, TARGETS, mixing)
        partner = (out == clips.flip(0))[0].all(dim=(0, 1))
        assert partner.sum() == height * width
        assert partner[top : top + height, left : left + width].all()
        assert mixed[0, 0] == pytest.approx(1 - height * width / (SIZE[0] * SIZE[1]))
        assert mixed[0, 4] == pytest.approx(1 - float(mixed[0, 0]))
        sizes.add((height, width))
    assert len(sizes) > 20
    assert torch.equal(clips, before)


def test_a_batch_with_padding_mixes_real_clips_alone(clips):
    clips[3:] = float("nan")
    for config in (MIXUP, CUTMIX):
        for mixing in drawn(config, 5, (1, 1, 1, 0, 0)):
            assert mixing.partners == (2, 1, 0, 3, 4)
            out, mixed = mix(clips, TARGETS, mixing)
            assert out[:3].isfinite().all()
            assert mixed[:3, 3:].eq(0).all()
            assert torch.equal(mixed[3:], TARGETS[3:])
    assert drawn(BOTH, 20, (1, 0, 0, 0, 0)) == [None] * 20
    assert drawn(BOTH, 20, (0, 0, 0, 0, 0)) == [None] * 20


def test_the_loss_of_mixed_targets_is_the_mixed_loss(clips):
    multi_hot = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]]).float()
    for labels, multi_label, smoothing in ((TARGETS, False, 0.0), (TARGETS, False, 0.1), (multi_hot, True, 0.1)):
        _, mixed = mix(clips, labels, Mixing(0.7, None, (4, 3, 2, 1, 0)))
        torch.testing.assert_close(mixed, 0.7 * labels + 0.3 * labels.flip(0))
        logits = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1))
        loss = Loss(function=find_loss("", multi_label), label_smoothing=smoothing)
        own, other, both = (loss(logits, y, torch.ones(5)) for y in (labels, labels.flip(0), mixed))
        torch.testing.assert_close(both, 0.7 * own + 0.3 * other)


def test_draws_depend_on_the_position_and_follow_the_probabilities():
    assert abs(np.mean([mixing.box is not None for mixing in drawn(BOTH, 1000)]) - 0.5) < 0.04
    shares = np.array([mixing.own_share for mixing in drawn(MIXUP, 1000)])
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.01  # of Beta(0.8, 0.8)
    assert draw_mixing(BOTH, SIZE, [1, 1], 3, 7, 0, 0) == draw_mixing(BOTH, SIZE, [1, 1], 3, 7, 0, 0)
    others = [(3, 8, 0, 0), (3, 7, 1, 0), (3, 7, 0, 1), (4, 7, 0, 0)]
    assert len({draw_mixing(BOTH, SIZE, [1, 1], *position) for position in [(3, 7, 0, 0), *others]}) == 5
    assert drawn(AugmentationConfig(), 5) == [None] * 5
