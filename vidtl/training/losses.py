"""Losses as sums over samples: any split of a batch over processes and micro-batches adds up to the same total."""

from torch import Tensor
from torch.nn import functional


def loss_sum(
    logits_BK: Tensor, targets_BK: Tensor, weights_B: Tensor, multi_label: bool, label_smoothing: float
) -> Tensor:
    """Sum over samples of weight x loss, in float32; the caller divides by the number of real samples.

    Single-label: cross-entropy of the softmax with soft targets. Multi-label: binary cross-entropy of each class,
    averaged over classes. Label smoothing y (1 - s) + s / K is ViViT's, for both.

    Args:
        logits_BK: scores before softmax or sigmoid, any floating dtype.
        targets_BK: one-hot, mixed or multi-hot, in [0, 1].
        weights_B: 1 for a real sample, 0 for padding.
        multi_label: whether a sample may have any number of classes.
        label_smoothing: share s of each target that is spread evenly over all classes.
    """
    targets_BK = targets_BK.float() * (1 - label_smoothing) + label_smoothing / targets_BK.shape[1]
    if multi_label:
        losses_B = functional.binary_cross_entropy_with_logits(logits_BK.float(), targets_BK, reduction="none").mean(
            dim=1
        )
    else:
        losses_B = functional.cross_entropy(logits_BK.float(), targets_BK, reduction="none")
    return (losses_B * weights_B).sum()
