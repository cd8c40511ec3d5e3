"""MixUp and CutMix: shares of pixels and labels agree, padding stays apart, and the position decides what is drawn."""

import numpy as np
import pytest
import torch

from vidtl.config import AugmentationConfig
from vidtl.data.augmentation import Mixing, draw_mixing, mix
from vidtl.training.losses import Loss, find_loss
from vidtl.video import Box

SIZE = (24, 32)
BOTH = AugmentationConfig(mixup_alpha=0.8, cutmix_alpha=1.0)
MIXUP = AugmentationConfig(mixup_alpha=0.8)
CUTMIX = AugmentationConfig(cutmix_alpha=1.0)


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(5, 3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.eye(5)


def drawn(config: AugmentationConfig, count: int, weights: tuple[float, ...] = (1, 1, 1, 1, 1)) -> list[Mixing | None]:
    return [draw_mixing(config, SIZE, list(weights), 3, step, 0, 0) for step in range(count)]


def test_mixup_adds_clips_and_labels_by_one_share(clips: torch.Tensor, targets: torch.Tensor) -> None:
    for mixing in drawn(MIXUP, 10):
        assert mixing is not None
        assert mixing.box is None
        out, mixed = mix(clips, targets, mixing)
        share = mixing.own_share
        torch.testing.assert_close(out, share * clips + (1 - share) * clips.flip(0))
        torch.testing.assert_close(mixed, share * targets + (1 - share) * targets.flip(0))
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(5))
        assert torch.equal(out[2], clips[2])  # the clip in the middle is its own partner


def test_cutmix_shares_labels_by_area(clips: torch.Tensor, targets: torch.Tensor) -> None:
    before, sizes = clips.clone(), set()
    for mixing in drawn(CUTMIX, 40):
        assert mixing is not None
        assert mixing.box is not None
        top, left, height, width = mixing.box
        assert 0 <= top <= top + height <= SIZE[0]
        assert 0 <= left <= left + width <= SIZE[1]
        out, mixed = mix(clips, targets, mixing)
        partner = (out == clips.flip(0))[0].all(dim=(0, 1))
        assert partner.sum() == height * width
        assert partner[top : top + height, left : left + width].all()
        assert mixed[0, 0] == pytest.approx(1 - height * width / (SIZE[0] * SIZE[1]))
        assert mixed[0, 4] == pytest.approx(1 - float(mixed[0, 0]))
        sizes.add((height, width))
    assert len(sizes) > 20
    assert torch.equal(clips, before)


def test_a_batch_with_padding_mixes_real_clips_alone(clips: torch.Tensor, targets: torch.Tensor) -> None:
    clips[3:] = float("nan")
    for config in (MIXUP, CUTMIX):
        for mixing in drawn(config, 5, (1, 1, 1, 0, 0)):
            assert mixing is not None
            assert mixing.partners == (2, 1, 0, 3, 4)
            out, mixed = mix(clips, targets, mixing)
            assert out[:3].isfinite().all()
            assert mixed[:3, 3:].eq(0).all()
            assert torch.equal(mixed[3:], targets[3:])
    assert drawn(BOTH, 20, (1, 0, 0, 0, 0)) == [None] * 20
    assert drawn(BOTH, 20, (0, 0, 0, 0, 0)) == [None] * 20


def test_several_labels_mix_as_one_does(clips: torch.Tensor) -> None:
    multi_hot = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]]).float()
    mixing = Mixing(0.7, None, (4, 3, 2, 1, 0))
    _, mixed = mix(clips, multi_hot, mixing)
    torch.testing.assert_close(mixed[0], torch.tensor([0.7, 1.0, 0.0]))
    torch.testing.assert_close(mixed[1], torch.tensor([0.3, 0.0, 0.0]))
    assert torch.equal(mixed[2], multi_hot[2])
    loss = Loss(function=find_loss("", multi_label=True), label_smoothing=0.1)
    assert loss(torch.zeros(5, 3), mixed, torch.ones(5)).isfinite()


def test_the_loss_of_mixed_targets_is_the_mixed_loss(clips: torch.Tensor, targets: torch.Tensor) -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    _, mixed = mix(clips, targets, Mixing(0.7, None, (4, 3, 2, 1, 0)))
    for smoothing in (0.0, 0.1):
        loss = Loss(function=find_loss("", multi_label=False), label_smoothing=smoothing)
        own, other, both = (loss(logits, y, torch.ones(5)) for y in (targets, targets.flip(0), mixed))
        # The clip in the middle keeps its own label, which is its partner's too.
        torch.testing.assert_close(both, 0.7 * own + 0.3 * other)


def test_draws_depend_on_the_position_and_follow_the_probabilities() -> None:
    many = drawn(AugmentationConfig(mixup_alpha=0.8, cutmix_alpha=1.0), 3000)
    mixed = [mixing for mixing in many if mixing]
    assert len(mixed) == 3000
    assert abs(np.mean([mixing.box is not None for mixing in mixed]) - 0.5) < 0.04
    shares = np.array([mixing.own_share for mixing in drawn(MIXUP, 3000) if mixing])
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.01  # of Beta(0.8, 0.8)
    assert draw_mixing(BOTH, SIZE, [1, 1], 3, 7, 0, 0) == draw_mixing(BOTH, SIZE, [1, 1], 3, 7, 0, 0)
    others = [(3, 8, 0, 0), (3, 7, 1, 0), (3, 7, 0, 1), (4, 7, 0, 0)]
    assert len({draw_mixing(BOTH, SIZE, [1, 1], *position) for position in [(3, 7, 0, 0), *others]}) == 5
    assert drawn(AugmentationConfig(), 5) == [None] * 5


def test_the_whole_frame_or_nothing_may_be_cut(clips: torch.Tensor, targets: torch.Tensor) -> None:
    for box, own in ((Box(0, 0, *SIZE), 0.0), (Box(3, 3, 0, 0), 1.0)):
        out, mixed = mix(clips, targets, Mixing(own, box, (4, 3, 2, 1, 0)))
        assert torch.equal(out, clips.flip(0) if own == 0 else clips)
        assert torch.equal(mixed, targets.flip(0) if own == 0 else targets)
