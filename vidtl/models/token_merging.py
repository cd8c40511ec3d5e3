"""Fewer tokens without learned maps, the baselines at TokenLearner's place: average pooling and ToMe.

Both are maps `[..., k, N]`, multiplied by the N tokens: no sums by atomics, equal bits in every run.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor


def average_maps(grid: tuple[int, int], num_tokens: int) -> Tensor:
    """Return `[k, N]`: adaptive average pooling of a grid of N = h w places to k = a c regions.

    The sides a and c are those whose ratio is nearest to h / w on a log scale.
    """
    sides = [(a, num_tokens // a) for a in range(1, num_tokens + 1) if num_tokens % a == 0]
    a, c = min(sides, key=lambda side: abs(math.log(side[0] * grid[1] / (side[1] * grid[0]))))
    places = torch.eye(grid[0] * grid[1]).view(-1, *grid)
    return F.adaptive_avg_pool2d(places, (a, c)).flatten(1).T


@torch.no_grad()
def merge_assignment(metric: Tensor, num_tokens: int) -> Tensor:
    """Assign N tokens to k by repeated bipartite matching: metric `[..., N, d]` to zeros and ones `[..., k, N]`.

    In each round the tokens at even positions are matched with the most similar one (cosine) at an odd position, and
    the most similar pairs merge, at most half of the tokens (Bolya et al., "Token merging", ICLR 2023, section 3).
    """
    metric = metric.float()
    assignment = torch.eye(metric.shape[-2], device=metric.device).expand(*metric.shape[:-1], -1)
    while (length := assignment.shape[-2]) > num_tokens:
        means = F.normalize(assignment @ metric, dim=-1)  # the length of a sum does not change its direction
        best, partner = (means[..., ::2, :] @ means[..., 1::2, :].mT).max(dim=-1)
        merged, kept = best.argsort(dim=-1, descending=True, stable=True).tensor_split(
            [min(length - num_tokens, length // 2)], dim=-1
        )
        even, odd = assignment[..., ::2, :], assignment[..., 1::2, :]
        places = torch.arange(odd.shape[-2], device=metric.device)[:, None]
        into = (partner.gather(-1, merged)[..., None, :] == places).float()
        rows = [even.gather(-2, index[..., None].expand(*index.shape, even.shape[-1])) for index in (kept, merged)]
        assignment = torch.cat([rows[0], odd + into @ rows[1]], dim=-2)
    return assignment
