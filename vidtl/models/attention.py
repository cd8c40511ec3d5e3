"""Multi-head self-attention, over the axes of a space-time grid of tokens that a model chooses.

Source: ViViT (Arnab et al., 2021) section 3.3; the four forms of the model differ only in which tokens attend to which.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from einops import rearrange
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.dropout import Dropout, drop

# Above this length the written-out L x L matrix costs more memory than the speed is worth.
_LONGEST_WRITTEN_OUT = 1024


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _cpu_multiplies_bf16() -> bool:
    """Whether this processor has instructions for bf16 products; written-out attention crawls without them."""
    capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # newer versions of torch
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _written_out_is_faster(q_BHLd: Tensor, k_BHLd: Tensor, dropout_p: float) -> bool:
    """Only on a CPU: with dropout, which torch's fused kernel lacks there, so that torch writes attention out as well,
    with more passes over the data; and in bf16 training, where that kernel's backward pass is 1.2 to 5 times slower.
    """
    if q_BHLd.device.type != "cpu" or max(q_BHLd.shape[-2], k_BHLd.shape[-2]) > _LONGEST_WRITTEN_OUT:
        return False
    return dropout_p > 0 or (q_BHLd.dtype == torch.bfloat16 and q_BHLd.requires_grad and _cpu_multiplies_bf16())


def attend_written_out(
    q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ · scale) v, matrix by matrix (Vaswani et al., 2017, equation 1)."""
    scale = q_BHLd.shape[-1] ** -0.5 if scale is None else scale
    # Once, for `rearrange` only views heads, and each product here and in the backward pass would copy its own.
    q_BHLd, k_BHLd, v_BHLd = (x_BHLd.contiguous() for x_BHLd in (q_BHLd, k_BHLd, v_BHLd))
    probabilities_BHLL = torch.softmax((q_BHLd * scale) @ k_BHLd.transpose(-2, -1), dim=-1)
    return drop(probabilities_BHLL.to(v_BHLd.dtype), dropout_p) @ v_BHLd


def attend(
    q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """Scaled dot-product attention by the kernel that is faster for this device, dtype and length.

    Args:
        q_BHLd, k_BHLd, v_BHLd: queries, keys and values, `[batch, heads, length, head width]`.
        dropout_p: chance that an attention probability is dropped; the caller passes 0 outside training.
        scale: factor on the products; `None` is head width to the power -1/2.

    Returns:
        `[batch, heads, length, head width]`.
    """
    if _written_out_is_faster(q_BHLd, k_BHLd, dropout_p):
        return attend_written_out(q_BHLd, k_BHLd, v_BHLd, dropout_p, scale)
    return F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd, dropout_p=dropout_p, scale=scale)


class SelfAttention(nn.Module):
    """Multi-head self-attention over one sequence: `[B, N, D] -> [B, N, D]`.

    Three projections rather than a fused one: measured equal in speed, and simpler to load and to start.
    Kernels start Xavier-uniform, biases at 0 (ViViT's reference code).

    Args:
        width: D.
        num_heads: heads, each as wide as the others.
        inner_width: of all heads together; D where it is not given.
        qkv_bias: whether queries, keys and values have biases.
        dropout: on the result.
        attention_dropout: on the attention probabilities.

    Raises:
        UserError: the inner width is not a multiple of the number of heads.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        inner_width: int | None = None,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inner = width if inner_width is None else inner_width
        if inner % num_heads:
            raise UserError(f"width is {inner}; allowed: multiples of the number of attention heads, {num_heads}")
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.q = nn.Linear(width, inner, bias=qkv_bias)
        self.k = nn.Linear(width, inner, bias=qkv_bias)
        self.v = nn.Linear(width, inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, width)
        self.dropout = Dropout(dropout)
        for layer in (self.q, self.k, self.v, self.proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        q, k, v = (
            rearrange(layer(tokens_BND), "B N (H d) -> B H N d", H=self.num_heads) for layer in (self.q, self.k, self.v)
        )
        mixed_BHNd = attend(q, k, v, self.dropout_p())
        mixed_BND: Tensor = self.dropout(self.proj(rearrange(mixed_BHNd, "B H N d -> B N (H d)")))
        return mixed_BND

    def dropout_p(self) -> float:
        """Dropout on attention probabilities: off outside training."""
        return self.attention_dropout if self.training else 0.0


class GridAttention(SelfAttention):
    """Self-attention on a grid, `[B, t, N, D] -> [B, t, N, D]`; subclasses say which tokens form one sequence."""

    sequences: ClassVar[str]

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        batch, timesteps, tokens, _ = tokens_BtND.shape
        mixed = super().forward(rearrange(tokens_BtND, f"B t N D -> {self.sequences}"))
        mixed_BtND: Tensor = rearrange(mixed, f"{self.sequences} -> B t N D", B=batch, t=timesteps, N=tokens)
        return mixed_BtND


class JointAttention(GridAttention):
    """Every token attends to every token of the clip (ViViT model 1)."""

    sequences = "B (t N) D"


class SpatialAttention(GridAttention):
    """Tokens attend to the tokens of their own timestep."""

    sequences = "(B t) N D"


class TemporalAttention(GridAttention):
    """Tokens attend to the tokens at their own place in other timesteps."""

    sequences = "(B N) t D"


class DotProductAttention(SelfAttention):
    """Factorised dot-product attention on a grid `[B, t, N, D]` (ViViT model 4).

    The first half of the heads attends over time, the second half over space, in the order of the reference code.

    Raises:
        UserError: the number of heads is odd.
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float = 0.0, attention_dropout: float = 0.0) -> None:
        if num_heads % 2:
            raise UserError(
                f"model.vivit.num_heads is {num_heads}; allowed: even numbers with form factorised_dot_product, "
                "where half of the heads attend over time and half over space"
            )
        super().__init__(width, num_heads, dropout=dropout, attention_dropout=attention_dropout)

    def forward(self, tokens_BtND: Tensor) -> Tensor:
        qkv = [layer(tokens_BtND).chunk(2, dim=-1) for layer in (self.q, self.k, self.v)]
        over_time = self._attend_half([first for first, _ in qkv], "(B N) H t d", tokens_BtND.shape)
        over_space = self._attend_half([second for _, second in qkv], "(B t) H N d", tokens_BtND.shape)
        mixed_BtND: Tensor = self.dropout(self.proj(torch.cat([over_time, over_space], dim=-1)))
        return mixed_BtND

    def _attend_half(self, qkv_BtND: list[Tensor], sequences: str, shape: torch.Size) -> Tensor:
        batch, timesteps, tokens, _ = shape
        q, k, v = (rearrange(part, f"B t N (H d) -> {sequences}", H=self.num_heads // 2) for part in qkv_BtND)
        mixed = attend(q, k, v, self.dropout_p())
        mixed_BtND: Tensor = rearrange(mixed, f"{sequences} -> B t N (H d)", B=batch, t=timesteps, N=tokens)
        return mixed_BtND
