import pytest
import torch
from numpy.testing import assert_allclose

from vidtl.training.losses import loss_sum

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0]])
ONE_HOT = torch.eye(3)[[0, 2, 1]]
MULTI_HOT = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


def by_hand(logits, targets, multi_label, smoothing):
    """Per-sample losses from the definitions, in float64."""
    logits, targets = logits.double(), targets.double() * (1 - smoothing) + smoothing / 3
    if multi_label:
        p = 1 / (1 + torch.exp(-logits))
        return -(targets * torch.log(p) + (1 - targets) * torch.log(1 - p)).mean(dim=1)
    return -(targets * torch.log(torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True))).sum(dim=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("targets", "multi_label"), [(ONE_HOT, False), (MULTI_HOT, True)])
def test_equals_the_definition_and_leaves_padding_out(targets, multi_label, smoothing):
    weights = torch.tensor([1.0, 0.0, 1.0])
    expected = (by_hand(LOGITS, targets, multi_label, smoothing) * weights).sum()
    assert_allclose(loss_sum(LOGITS, targets, weights, multi_label, smoothing), expected, rtol=1e-6)


def test_is_computed_in_float32_whatever_the_model_gives():
    logits = LOGITS.bfloat16()
    total = loss_sum(logits, ONE_HOT, torch.ones(3), False, 0.0)
    assert total.dtype == torch.float32
    assert_allclose(total, by_hand(logits, ONE_HOT, False, 0.0).sum(), rtol=1e-6)


def test_parts_of_a_batch_add_up():
    whole = loss_sum(LOGITS, ONE_HOT, torch.ones(3), False, 0.1)
    parts = sum(loss_sum(LOGITS[i : i + 1], ONE_HOT[i : i + 1], torch.ones(1), False, 0.1) for i in range(3))
    assert_allclose(whole, parts, rtol=1e-6)
