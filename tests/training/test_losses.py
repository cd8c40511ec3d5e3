import pytest
import torch
from numpy.testing import assert_allclose

from tests.refusals import refused
from vidtl.training.losses import LOSSES, Loss, balanced_class_weights, find_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0]])
ONE_HOT = torch.eye(3)[[0, 2, 1]]
MULTI_HOT = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 0.5])
ALL = [(name, multi_label) for name, row in LOSSES.items() for multi_label in (False, True) if row[multi_label]]


def by_hand(name, logits, targets, multi_label, smoothing, weights):
    """Per-sample losses from the definitions, in float64."""
    logits, targets = logits.double(), targets.double() * (1 - smoothing) + smoothing / 3
    gamma = 2 if name == "focal" else 0
    if name == "binary_cross_entropy" or multi_label:
        p = 1 / (1 + torch.exp(-logits))
        positive = weights * targets * (1 - p) ** gamma * torch.log(p)
        return -(positive + (1 - targets) * p**gamma * torch.log(1 - p)).mean(dim=1)
    p = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    return -(weights * targets * (1 - p) ** gamma * torch.log(p)).sum(dim=1)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("name", "multi_label"), ALL)
def test_losses_equal_their_definition_without_padding_in_any_split(name, multi_label, smoothing, class_weights):
    targets, samples = MULTI_HOT if multi_label else ONE_HOT, torch.tensor([1.0, 0.0, 1.0])
    loss = Loss(function=find_loss(name, multi_label), label_smoothing=smoothing, class_weights=class_weights)
    weights = 1.0 if class_weights is None else class_weights
    expected = (by_hand(name, LOGITS, targets, multi_label, smoothing, weights) * samples).sum()
    assert_allclose(loss(LOGITS, targets, samples), expected, rtol=1e-5)
    parts = sum(loss(LOGITS[i : i + 1], targets[i : i + 1], samples[i : i + 1]) for i in range(3))
    assert_allclose(parts, expected, rtol=1e-5)


def test_losses_of_bfloat16_logits_are_computed_in_float32():
    logits = LOGITS.bfloat16()
    total = Loss(function=find_loss("", multi_label=False))(logits, ONE_HOT, torch.ones(3))
    assert total.dtype == torch.float32
    assert_allclose(total, by_hand("cross_entropy", logits, ONE_HOT, False, 0.0, 1.0).sum(), rtol=1e-6)


def test_focal_loss_and_its_gradient_are_finite_at_extreme_logits():
    logits = torch.tensor([[300.0, -300.0, 0.0]] * 2, requires_grad=True)
    for multi_label in (False, True):
        loss = Loss(function=find_loss("focal", multi_label))(logits, ONE_HOT[:2], torch.ones(2))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_the_default_follows_the_kind_of_labels():
    assert find_loss("", multi_label=False) is find_loss("cross_entropy", multi_label=False)
    assert find_loss("", multi_label=True) is find_loss("binary_cross_entropy", multi_label=True)


@pytest.mark.parametrize(
    ("name", "multi_label", "parts"),
    [("focl", False, ("'focl'", "'focal'")), ("cross_entropy", True, ("'binary_cross_entropy'", "multi-label"))],
)
def test_a_loss_that_does_not_exist_or_fit_is_refused(name, multi_label, parts):
    with refused("training.loss", *parts):
        find_loss(name, multi_label)


def test_balanced_weights_are_inverse_to_the_frequency_with_mean_1():
    assert_allclose(balanced_class_weights(torch.tensor([10, 30, 30])), [1.8, 0.6, 0.6], rtol=1e-6)
    assert_allclose(balanced_class_weights(torch.tensor([10, 0, 30])), [1.5, 0.0, 0.5], rtol=1e-6)
