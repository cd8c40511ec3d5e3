"""The table of losses. To add one, add a function and a row to `LOSSES`; `training.loss` then accepts its name.

Axes: B samples, K classes. Functions return the loss per sample [B] in float32 for logits [B, K], targets [B, K] in
[0, 1] (one-hot, mixed or multi-hot; smoothed) and class weights [K] or None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from vidtl.errors import UserError, did_you_mean

FOCAL_GAMMA = 2.0  # Lin et al. (2017)


def cross_entropy(logits_BK: Tensor, targets_BK: Tensor, weights_K: Tensor | None) -> Tensor:
    """Compute the cross-entropy of the softmax; class weights scale the terms of the sum over classes."""
    return functional.cross_entropy(logits_BK, targets_BK, weight=weights_K, reduction="none")


def binary_cross_entropy(logits_BK: Tensor, targets_BK: Tensor, weights_K: Tensor | None) -> Tensor:
    """Compute the binary cross-entropy of each class, averaged over classes; class weights scale positive terms."""
    losses_BK = functional.binary_cross_entropy_with_logits(
        logits_BK, targets_BK, pos_weight=weights_K, reduction="none"
    )
    return losses_BK.mean(dim=1)


def focal(logits_BK: Tensor, targets_BK: Tensor, weights_K: Tensor | None, multi_label: bool) -> Tensor:
    """Compute -(1 - p)^gamma y log p (Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4).

    p is the softmax, and the loss is summed over classes (soft targets y). Multi-label, p is the sigmoid, negative
    terms are p^gamma (1 - y) log(1 - p), and the loss is averaged over classes. Class weights replace alpha.
    """
    alpha_K = torch.ones_like(targets_BK[0]) if weights_K is None else weights_K
    if not multi_label:
        log_p_BK = functional.log_softmax(logits_BK, dim=1)
        return -(alpha_K * targets_BK * (1 - log_p_BK.exp()) ** FOCAL_GAMMA * log_p_BK).sum(dim=1)
    log_p_BK, log_q_BK = functional.logsigmoid(logits_BK), functional.logsigmoid(-logits_BK)
    positive_BK = alpha_K * targets_BK * log_q_BK.exp() ** FOCAL_GAMMA * log_p_BK
    negative_BK = (1 - targets_BK) * log_p_BK.exp() ** FOCAL_GAMMA * log_q_BK
    return -(positive_BK + negative_BK).mean(dim=1)


LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]

LOSSES: dict[str, tuple[LossFunction | None, LossFunction | None]] = {
    "cross_entropy": (cross_entropy, None),
    "binary_cross_entropy": (binary_cross_entropy, binary_cross_entropy),
    "focal": (partial(focal, multi_label=False), partial(focal, multi_label=True)),
}
"""Values of `training.loss`: the function for single-label and for multi-label data."""


@dataclass(frozen=True)
class Loss:
    """Loss function with its label smoothing and class weights."""

    function: LossFunction
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    """[K]"""

    def __call__(self, logits_BK: Tensor, targets_BK: Tensor, weights_B: Tensor) -> Tensor:
        """Sum sample weight x loss over samples, in float32; the caller divides by the number of real samples.

        `weights_B` is 0 for padding. Label smoothing is ViViT's for both kinds of labels: y (1 - s) + s / K.
        """
        smoothing = self.label_smoothing
        targets_BK = targets_BK.float() * (1 - smoothing) + smoothing / targets_BK.shape[1]
        class_weights_K = None if self.class_weights is None else self.class_weights.to(logits_BK.device)
        return (self.function(logits_BK.float(), targets_BK, class_weights_K) * weights_B).sum()

    def of_each(self, logits_nBK: Tensor, targets_BK: Tensor, weights_B: Tensor, distillation: float) -> Tensor:
        """Average the loss for all tokens, the first, and those for smaller numbers of them.

        `distillation` is the share in the latter of a cross-entropy with the probabilities for all tokens, without
        gradient (inplace distillation of Yu and Huang, "Universally slimmable networks", ICCV 2019).
        """
        all_BK, *fewer = logits_nBK.float()
        total = self(all_BK, targets_BK, weights_B)
        by_class = self.function in [function for _, function in LOSSES.values()]
        soft_BK = (all_BK.sigmoid() if by_class else all_BK.softmax(dim=1)).detach()
        distance = Loss(binary_cross_entropy if by_class else cross_entropy)
        for logits_BK in fewer:
            labels, soft = self(logits_BK, targets_BK, weights_B), distance(logits_BK, soft_BK, weights_B)
            total = total + labels + distillation * (soft - labels)
        return total / len(logits_nBK)


def find_loss(name: str, multi_label: bool) -> LossFunction:
    """Return the loss of `training.loss`, '' for a cross-entropy; UserError where it does not fit the labels."""
    name = name or ("binary_cross_entropy" if multi_label else "cross_entropy")
    fitting = {each: functions[multi_label] for each, functions in LOSSES.items()}
    function = fitting.get(name)
    if function is None:
        labels, allowed = "multi-label" if multi_label else "single-label", [each for each in fitting if fitting[each]]
        raise UserError(f"training.loss is {name!r}; with {labels} data, {did_you_mean(name, allowed)}")
    return function


def balanced_class_weights(counts_K: Tensor) -> Tensor:
    """Compute weights [K] inverse to the samples of each class, of mean 1 over the samples; 0 without samples."""
    has_samples = counts_K > 0
    mean_count = counts_K.sum() / has_samples.sum()
    return torch.where(has_samples, mean_count / counts_K, 0.0)
