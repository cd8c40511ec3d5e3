"""Multi-head self-attention over the axes of a space-time grid of tokens (ViViT, section 3.3).

Axes: B clips, t timesteps, N tokens of a timestep, D width, H heads, d head width.
"""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange
from torch import Tensor, nn

from vidtl.config.checks import require

Axes = Literal["joint", "space", "time", "time_and_space"]

SEQUENCES: dict[Axes, tuple[str, ...]] = {
    "joint": ("B H (t N) d",),
    "space": ("(B t) H N d",),
    "time": ("(B N) H t d",),
    "time_and_space": ("(B N) H t d", "(B t) H N d"),
}
"""Layouts `[batch, heads, length, head width]` of the sequences; equal shares of the heads take each entry."""

Cache = dict[nn.Module, tuple[Tensor, ...]]
"""What causal attentions keep of the tokens of earlier calls, by module: keys and values `[B, t, N, H d]`."""


class Attention(nn.Module):
    """Multi-head self-attention on a grid of tokens: `[B, t, N, D] -> [B, t, N, D]`.

    Kernels start Xavier-uniform, biases at 0 (ViViT's reference code).

    Args:
        axes: tokens that attend to each other: all of the clip (`joint`, ViViT model 1), those of a timestep (`space`),
            those at one place (`time`), or `time_and_space`: the first half of the heads over time, the second half
            over space (factorised dot-product attention, model 4).
        head_width: d; D / H by default.
        softcap: c of c · tanh(logits / c), applied to the logits before the softmax (VideoPrism: 50); 0 for none.

    UserError: the heads do not divide the width, or their number is odd with `time_and_space`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        axes: Axes = "joint",
        head_width: int | None = None,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        softcap: float = 0.0,
    ) -> None:
        super().__init__()
        divides = head_width is not None or width % num_heads == 0
        require(divides, "model.width", width, f"multiples of model.num_heads, {num_heads}")
        even = "even numbers with form factorised_dot_product: half of the heads attend over time, half over space"
        require(num_heads % len(SEQUENCES[axes]) == 0, "model.num_heads", num_heads, even)
        inner = width if head_width is None else num_heads * head_width
        self.num_heads = num_heads
        self.axes = axes
        self.attention_dropout = attention_dropout
        self.softcap = softcap
        self.causal = False
        self.q = nn.Linear(width, inner, bias=qkv_bias)
        self.k = nn.Linear(width, inner, bias=qkv_bias)
        self.v = nn.Linear(width, inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.q, self.k, self.v, self.proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, tokens_BtND: Tensor, *biases_BtN: Tensor, cache: Cache | None = None) -> Tensor:
        """Attend, with biases added to the logits of the keys: log sizes of merged tokens (ToMe).

        With a cache, the tokens of a causal attention follow those of earlier calls, and join them in the cache.
        """
        sequences = SEQUENCES[self.axes]
        q, k, v = (layer(tokens_BtND) for layer in (self.q, self.k, self.v))
        if cache is not None and self.causal:
            if self in cache:
                k, v = (torch.cat(parts, dim=2) for parts in zip(cache[self], (k, v), strict=True))
            cache[self] = k, v
        shares = [each.chunk(len(sequences), dim=-1) for each in (q, k, v)]
        mixed = [self._attend(*share, *biases_BtN) for share in zip(*shares, sequences, strict=True)]
        out_BtND: Tensor = self.dropout(self.proj(mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=-1)))
        return out_BtND

    def _attend(self, q_BtND: Tensor, k_BtND: Tensor, v_BtND: Tensor, pattern: str, *biases_BtN: Tensor) -> Tensor:
        batch, timesteps, tokens, _ = q_BtND.shape
        over_places = "N" in pattern.partition("H")[2]
        if not over_places:  # those at the place of each token, none of a cache
            k_BtND, v_BtND = k_BtND[:, :, -tokens:], v_BtND[:, :, -tokens:]
        heads = self.num_heads // len(SEQUENCES[self.axes])
        q, k, v = (rearrange(x, f"B t N (H d) -> {pattern}", H=heads) for x in (q_BtND, k_BtND, v_BtND))
        dropout = self.attention_dropout if self.training else 0.0
        biases = [rearrange(x[..., None], f"B t N (H d) -> {pattern}", H=1).mT.to(q.dtype) for x in biases_BtN]
        if self.causal and over_places:
            keys = k_BtND.shape[2]
            later = q.new_full((tokens, keys), -torch.inf).triu(keys - tokens + 1)
            biases = [later.repeat(timesteps, timesteps) if self.axes == "joint" else later]
        if self.softcap:  # no fused kernel has it
            logits = sum(biases, self.softcap * torch.tanh(q @ k.mT * (q.shape[-1] ** -0.5 / self.softcap)))
            mixed = F.dropout(logits.softmax(dim=-1), dropout) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, next(iter(biases), None), dropout_p=dropout)
        mixed_BtND: Tensor = rearrange(mixed, f"{pattern} -> B t N (H d)", B=batch, t=timesteps, N=tokens)
        return mixed_BtND


def make_causal(blocks: Iterable[nn.Module]) -> None:
    """Let each token attend to itself and earlier ones of its timestep; in joint attention, of every timestep."""
    for block in blocks:
        for module in block.modules():
            if isinstance(module, Attention):
                module.causal = module.axes != "time"  # which has one token of each place
