"""Fusion of the logits of all views of a video into one score per class.

Axes: V views (clips x crops), K classes. Everything is float64, so that neither the number of views nor the size of the
logits decides a rank.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vidtl.errors import UserError, did_you_mean


def mean_logits(logits_VK: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """Average the raw logits (ViViT, Scenic's trainer)."""
    return logits_VK.mean(dim=0)


def mean_probabilities(logits_VK: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """Average softmax probabilities, or sigmoid probabilities for multi-label data (SlowFast, mmaction2).

    A float64 sigmoid reaches 1 at logits of about 37; classes that all views put beyond that tie.
    """
    return _probabilities(logits_VK, multi_label).mean(dim=0)


def maximum(logits_VK: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """Take the largest probability over views (Non-local networks and SlowFast on Charades).

    Multi-label scores stay logits: the sigmoid is monotone, so the largest logit ranks as the largest probability does,
    and no two large logits saturate into a tie. Softmax depends on the other classes of its view, so single-label
    scores are the largest softmax probability.
    """
    return (logits_VK if multi_label else _probabilities(logits_VK, multi_label)).amax(dim=0)


FUSIONS: dict[str, Callable[[torch.Tensor, bool], torch.Tensor]] = {
    "mean_logits": mean_logits,
    "mean_probabilities": mean_probabilities,
    "max": maximum,
}


def fuse(logits_VK: ArrayLike, fusion: str, multi_label: bool) -> NDArray[np.float64]:
    """Fuse the views of one video.

    Args:
        logits_VK: real numbers [V, K], one row per view.
        fusion: a key of `FUSIONS`.
        multi_label: classes are independent (sigmoid) instead of exclusive (softmax).

    Returns:
        float64 [K]; larger is more likely. Logits for `mean_logits` and multi-label `max`, probabilities otherwise.

    Raises:
        UserError: unknown fusion.
        ValueError: no views.
    """
    if fusion not in FUSIONS:
        raise UserError(f"evaluation.fusion is {fusion!r}; {did_you_mean(fusion, FUSIONS)}")
    logits = torch.from_numpy(np.array(logits_VK, dtype=np.float64))
    if logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected [views, classes] with at least one view")
    scores: NDArray[np.float64] = FUSIONS[fusion](logits, multi_label).numpy()
    return scores


def probabilities(scores_NK: ArrayLike, fusion: str, multi_label: bool) -> NDArray[np.float64]:
    """Convert fused scores to probabilities: softmax or sigmoid of logits, other scores unchanged.

    Args:
        scores_NK: rows of `fuse`; rows of -inf (unreadable videos) give rows of NaN.
        fusion: a key of `FUSIONS`.
        multi_label: as in `fuse`.

    Returns:
        float64 [N, K] in 0..1. Single-label rows sum to 1, except for `max`, whose rows are maxima of several views.
    """
    scores = np.array(scores_NK, dtype=np.float64)
    scores[np.isneginf(scores).all(axis=-1)] = np.nan
    if fusion == "mean_logits" or (fusion == "max" and multi_label):
        scores = _probabilities(torch.from_numpy(scores), multi_label).numpy()
    return scores


def _probabilities(logits_VK: torch.Tensor, multi_label: bool) -> torch.Tensor:
    return logits_VK.sigmoid() if multi_label else logits_VK.softmax(dim=-1)
