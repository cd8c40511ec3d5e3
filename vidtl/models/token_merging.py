"""The baselines at TokenLearner's place, as maps `[..., k, N]`: products with these are equal in every run."""

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor


def average_maps(tokens: Tensor, num_tokens: int, grid: tuple[int, int]) -> Tensor:
    """Return maps of adaptive average pooling to k = a c regions with sides a / c nearest to h / w: `[..., k, N]`."""
    sides = [(a, num_tokens // a) for a in range(1, num_tokens + 1) if num_tokens % a == 0]
    nearest = min(sides, key=lambda side: max(x := side[0] * grid[1], y := side[1] * grid[0]) / min(x, y))
    places = torch.eye(grid[0] * grid[1], dtype=tokens.dtype, device=tokens.device).view(-1, *grid)
    return F.adaptive_avg_pool2d(places, nearest).flatten(1).T.expand(*tokens.shape[:-2], -1, -1)


@torch.no_grad()
def merge_maps(tokens: Tensor, num_tokens: int) -> Tensor:
    """Compute averages of merged tokens by repeated bipartite matching: `[..., N, D]` to `[..., k, N]`.

    In each round the tokens at even positions are matched with the most similar one (cosine) at an odd position, and
    the most similar pairs merge, at most half of the tokens (Bolya et al., "Token merging", ICLR 2023, section 3).
    """
    parts = torch.eye(tokens.shape[-2], device=tokens.device).expand(*tokens.shape[:-1], -1)
    while (length := parts.shape[-2]) > num_tokens:
        means = F.normalize(parts @ tokens.float(), dim=-1)  # the length of a sum leaves its direction
        best, partner = (means[..., ::2, :] @ means[..., 1::2, :].mT).max(dim=-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
        merged, kept = order.tensor_split([min(length - num_tokens, length // 2)], dim=-1)
        even, odd = parts[..., ::2, :], parts[..., 1::2, :]
        into = partner.gather(-1, merged)[..., None, :] == torch.arange(odd.shape[-2], device=odd.device)[:, None]
        merged, kept = (even.take_along_dim(index[..., None], dim=-2) for index in (merged, kept))
        parts = torch.cat([kept, odd + into.float() @ merged], dim=-2)
    return parts / parts.sum(dim=-1, keepdim=True)
