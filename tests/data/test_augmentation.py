"""Augmentation: defaults change nothing, each change does what its name says, and clips do not affect each other."""

import dataclasses

import numpy as np
import pytest
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.augmentation import Augmentation, ColorJitter, Erasure, augment, draw_augmentation, erase
from vidtl.data.rand_augment import Operation
from vidtl.runtime.seeding import generator
from vidtl.video import Box

SIZE = (6, 8)


@pytest.fixture
def rgb() -> torch.Tensor:
    return torch.rand(3, 4, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def jittered(rgb: torch.Tensor, *colors: ColorJitter) -> torch.Tensor:
    return augment(rgb, [Augmentation(color=color) for color in colors])


def test_defaults_change_nothing_at_no_cost(rgb: torch.Tensor) -> None:
    assert augment(rgb, [Augmentation()] * 3) is rgb


def test_each_clip_gets_its_own_change(rgb: torch.Tensor) -> None:
    clips = [Augmentation(flip=True), Augmentation(color=ColorJitter(saturation=0)), Augmentation()]
    out = augment(rgb, clips)
    torch.testing.assert_close(out[0], rgb[0].flip(-1), atol=1e-6, rtol=0)
    assert (out[1].amax(dim=1) - out[1].amin(dim=1)).max() < 1e-5  # grayscale: all channels equal
    torch.testing.assert_close(out[2], rgb[2], atol=1e-6, rtol=0)


def test_operations_come_before_colors(rgb: torch.Tensor) -> None:
    inverted = Augmentation(color=ColorJitter(brightness=0.1), operations=(Operation("invert"),))
    out = augment(rgb, [Augmentation(), inverted, Augmentation(flip=True)])
    levels = (rgb * 255).round() / 255
    torch.testing.assert_close(out[0], rgb[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(out[1], (1 - levels[1] + 0.1).clamp(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(out[2], rgb[2].flip(-1), atol=1e-6, rtol=0)


def test_hue_rotates_colors_and_keeps_luma(rgb: torch.Tensor) -> None:
    muted = rgb * 0.2 + 0.4  # far from the limits of the range, where clipping would change the luma
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    out = jittered(muted, *[ColorJitter(hue=0.3)] * 3)
    assert (out - muted).abs().mean() > 0.01
    torch.testing.assert_close((out * luma).sum(2), (muted * luma).sum(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(jittered(muted, *[ColorJitter(hue=1.0)] * 3), muted, atol=1e-4, rtol=0)


def test_contrast_keeps_the_mean_and_brightness_moves_it(rgb: torch.Tensor) -> None:
    out = jittered(rgb, ColorJitter(contrast=0.5), ColorJitter(brightness=0.1), ColorJitter())
    torch.testing.assert_close(out[0].mean((2, 3)), rgb[0].mean((2, 3)), atol=1e-6, rtol=0)
    assert out[0].std() < rgb[0].std() * 0.6
    assert (out[1] - rgb[1]).mean() > 0.08
    assert 0 <= out.min() <= out.max() <= 1


def test_frames_of_a_clip_change_alike(rgb: torch.Tensor) -> None:
    still = rgb[:, :1].expand(-1, 4, -1, -1, -1)
    out = augment(still, [Augmentation(True, ColorJitter(0.1, 1.3, 1.2, 0.1))] * 3)
    assert (out - out[:, :1]).abs().max() == 0


def test_draws_follow_the_probabilities_and_the_key() -> None:
    config = AugmentationConfig(
        flip_probability=0.5,
        color_jitter=(0.1, 0.3, 0.4, 0.2),
        color_jitter_probability=0.8,
        grayscale_probability=0.1,
    )
    draws = [draw_augmentation(config, SIZE, generator(0, index)) for index in range(2000)]
    assert draws[7] == draw_augmentation(config, SIZE, generator(0, 7))
    brightness, contrast, saturation, hue = np.array([draw.color for draw in draws]).T
    assert abs(np.mean([draw.flip for draw in draws]) - 0.5) < 0.05
    assert abs((brightness != 0).mean() - 0.8) < 0.05
    assert abs((saturation == 0).mean() - 0.1) < 0.03
    for values, center, limit in (
        (brightness, 0, 0.1),
        (contrast, 1, 0.3),
        (saturation[saturation > 0], 1, 0.4),
        (hue, 0, 0.2),
    ):
        assert 0.9 * limit < np.abs(values - center).max() <= limit


@pytest.mark.parametrize(
    "change",
    [
        {"flip_probability": 0.0},
        {"color_jitter_probability": 1.0},
        {"rand_augment_num_ops": 3},
        {"random_erasing_probability": 1.0},
    ],
)
def test_enabling_a_change_leaves_the_others(change: dict[str, float]) -> None:
    plain = AugmentationConfig(
        flip_probability=0.5, color_jitter_probability=0.5, grayscale_probability=0.3, random_erasing_probability=0.5
    )
    name = next(iter(change))
    fields = {
        "flip_probability": "flip",
        "color_jitter_probability": "color",
        "rand_augment_num_ops": "operations",
        "random_erasing_probability": "erasure",
    }
    for index in range(20):
        first, second = (
            draw_augmentation(config, (64, 64), generator(0, index))
            for config in (plain, dataclasses.replace(plain, **change))
        )
        for key in set(fields) - {name}:
            assert getattr(first, fields[key]) == getattr(second, fields[key])


def test_erasing_puts_noise_into_the_same_box_of_all_frames() -> None:
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
    assert torch.equal(alone[0], out[1])  # independent of its neighbors


def test_erased_boxes_follow_the_published_ranges() -> None:
    config = AugmentationConfig(random_erasing_probability=0.25)
    drawn = [draw_augmentation(config, (112, 112), generator(1, index)).erasure for index in range(4000)]
    boxes = np.array([erasure.box for erasure in drawn if erasure])
    assert abs(len(boxes) / 4000 - 0.25) < 0.03
    assert len({erasure.seed for erasure in drawn if erasure}) == len(boxes)
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 112**2, boxes[:, 2] / boxes[:, 3]
    assert 0.018 < areas.min() < 0.03
    assert 0.3 < areas.max() < 0.35
    assert 0.27 < aspects.min() < 0.5
    assert 2 < aspects.max() < 3.7
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 112).all()
