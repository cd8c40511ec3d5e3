"""Training of an elastic TokenLearner: in each step all tokens, a drawn number of them, and one.

Source: the sandwich rule and in-place distillation of Yu and Huang, "Universally slimmable networks", ICCV 2019.
"""

import math

from torch import Tensor, nn

from vidtl.runtime.seeding import generator
from vidtl.training.losses import LOSSES, Loss, binary_cross_entropy, cross_entropy


def draw_token_counts(model: nn.Module, seed: int, step: int) -> dict[str, tuple[int, int, int]]:
    """Return `token_counts` for an elastic model: S, a number drawn log-uniformly in every process alike, and 1."""
    most: int = getattr(model, "elastic_tokens", 0)
    if not most:
        return {}
    drawn = math.exp(generator(seed, step).uniform(math.log(2), math.log(most)))
    return {"token_counts": (most, int(drawn), 1)}


def mean_loss(loss: Loss, logits_nBK: Tensor, targets_BK: Tensor, weights_B: Tensor, distillation: float) -> Tensor:
    """Average the loss for S tokens, the first, and the mean loss for the other numbers, if there are any.

    `distillation` is the share in the latter of a cross-entropy with the probabilities for S tokens, without gradient.
    """
    most_BK, *fewer = logits_nBK.float()
    total = loss(most_BK, targets_BK, weights_B)
    by_class = loss.function in [function for _, function in LOSSES.values()]
    soft_BK = (most_BK.sigmoid() if by_class else most_BK.softmax(dim=1)).detach()
    distance = Loss(binary_cross_entropy if by_class else cross_entropy)
    for logits_BK in fewer:
        labels, soft = loss(logits_BK, targets_BK, weights_B), distance(logits_BK, soft_BK, weights_B)
        total = total + (labels + distillation * (soft - labels)) / len(fewer)
    return total / 2 if fewer else total
