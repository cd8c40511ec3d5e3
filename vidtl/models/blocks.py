"""Transformer blocks: attention, MLP, LayerScale, stochastic depth.

Source: ViViT (Arnab et al., 2021, section 3.3) and its reference code: pre-norm, biases everywhere.
Axes: B clips, t timesteps, N tokens of a timestep, D width, H heads, d head width.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from vidtl.models.attention import Attention, Axes, Cache

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


class Mlp(nn.Module):
    """Linear, activation, dropout, linear, dropout: `[..., D] -> [..., out]`.

    Kernels start Xavier-uniform, biases from N(0, 1e-6). `activate_output` adds an activation after the second layer.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int,
        *,
        dropout: float = 0.0,
        activation: Activation = "gelu",
        activate_output: bool = False,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = make_activation(activation)
        self.fc2 = nn.Linear(hidden, out)
        self.dropout = nn.Dropout(dropout)
        self.activate_output = activate_output
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.dropout(self.act(self.fc1(tokens)))
        out: Tensor = self.dropout(self.act(self.fc2(hidden)) if self.activate_output else self.fc2(hidden))
        return out


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * torch.sigmoid(1.702 * hidden)


def make_activation(name: Activation) -> nn.Module:
    """Return the exact GELU, its approximation by tanh (ViViT, SigLIP) or by a sigmoid (OpenAI's CLIP)."""
    return QuickGELU() if name == "quick_gelu" else nn.GELU(approximate="tanh" if name == "gelu_tanh" else "none")


class LayerScale(nn.Module):
    """Multiply each channel by a learned factor (Touvron et al., 2021, arXiv 2103.17239)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), start))

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.weight


def make_layer_scale(width: int, start: float) -> nn.Module:
    """Return a LayerScale that starts at `start`, or nothing for 0."""
    return LayerScale(width, start) if start else nn.Identity()


class StochasticDepth(nn.Module):
    """Drop a residual branch for whole examples (axis 0) in training; each call draws anew.

    `rescale` divides kept branches by the probability of keeping them, as timm does and ViViT's code does not.
    """

    def __init__(self, probability: float, rescale: bool = False) -> None:
        super().__init__()
        self.probability = probability
        self.rescale = rescale

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return branch
        keep = 1.0 - self.probability
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = (torch.rand(shape, device=branch.device) < keep).to(branch.dtype)
        return branch * (kept / keep if self.rescale else kept)


def drop_path_ramp(probability: float, depth: int) -> list[float]:
    """Return the stochastic depth of each block: 0 at the first, `probability` at the last (p · l / (L - 1))."""
    return [probability * block / max(depth - 1, 1) for block in range(depth)]


class TransformerBlock(nn.Module):
    """x + Attention(Norm(x)), then x + MLP(Norm(x)): `[B, t, N, D] -> [B, t, N, D]`."""

    def __init__(
        self,
        width: int,
        attention: Attention,
        mlp: Mlp,
        drop_path: StochasticDepth | None = None,
        norm_eps: float = 1e-6,
        layer_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = attention
        self.scale1 = make_layer_scale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = mlp
        self.scale2 = make_layer_scale(width, layer_scale)
        self.drop_path = drop_path or StochasticDepth(0.0)

    def forward(self, tokens_BtND: Tensor, *biases_BtN: Tensor, cache: Cache | None = None) -> Tensor:
        mixed_BtND = self.attn(self.norm1(tokens_BtND), *biases_BtN, cache=cache)
        tokens_BtND = tokens_BtND + self.drop_path(self.scale1(mixed_BtND))
        out_BtND: Tensor = tokens_BtND + self.drop_path(self.scale2(self.mlp(self.norm2(tokens_BtND))))
        return out_BtND


class FactorisedSelfAttentionBlock(nn.Module):
    """Attention over one axis, attention over the other, MLP: `[B, t, N, D] -> [B, t, N, D]` (ViViT model 3).

    The first `num_prefix` tokens of each timestep are those of the clip (class token, registers): equal at all times,
    they skip the attention over time, and that over space updates them by the mean over the timesteps (TimeSformer).
    """

    def __init__(
        self,
        width: int,
        attentions: tuple[Attention, Attention],
        mlp: Mlp,
        drop_path: StochasticDepth | None = None,
        norm_eps: float = 1e-6,
        layer_scale: float = 0.0,
        num_prefix: int = 0,
    ) -> None:
        super().__init__()
        self.order = attentions[0].axes, attentions[1].axes
        self.num_prefix = num_prefix
        for attention in attentions:
            self.add_module(f"norm_{attention.axes}", nn.LayerNorm(width, eps=norm_eps))
            self.add_module(f"attn_{attention.axes}", attention)
            self.add_module(f"scale_{attention.axes}", make_layer_scale(width, layer_scale))
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = mlp
        self.scale_mlp = make_layer_scale(width, layer_scale)
        self.drop_path = drop_path or StochasticDepth(0.0)

    def forward(self, tokens_BtND: Tensor, cache: Cache | None = None) -> Tensor:
        for axis in self.order:
            tokens_BtND = tokens_BtND + self.drop_path(self._attend(axis, tokens_BtND, cache))
        out_BtND: Tensor = tokens_BtND + self.drop_path(self.scale_mlp(self.mlp(self.norm_mlp(tokens_BtND))))
        return out_BtND

    def _attend(self, axis: Axes, tokens_BtND: Tensor, cache: Cache | None) -> Tensor:
        norm, attention, scale = (self.get_submodule(f"{part}_{axis}") for part in ("norm", "attn", "scale"))
        prefix = self.num_prefix
        if prefix and axis == "time":
            return F.pad(scale(attention(norm(tokens_BtND[:, :, prefix:]))), (0, 0, prefix, 0))
        mixed: Tensor = scale(attention(norm(tokens_BtND), cache=cache))
        if not prefix:
            return mixed
        shared = mixed[:, :, :prefix].mean(dim=1, keepdim=True).expand(-1, mixed.shape[1], -1, -1)
        return torch.cat([shared, mixed[:, :, prefix:]], dim=2)


def make_blocks(
    depth: int,
    axes: tuple[Axes, ...],
    width: int,
    num_heads: int,
    mlp_width: int,
    *,
    activation: Activation = "gelu",
    norm_eps: float = 1e-6,
    layer_scale: float = 0.0,
    softcap: float = 0.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    stochastic_depth_rescale: bool = False,
    num_prefix: int = 0,
) -> nn.ModuleList:
    """Build blocks with an attention over each of `axes`, one or time and space in either order."""
    attention = partial(
        Attention, width, num_heads, dropout=dropout, attention_dropout=attention_dropout, softcap=softcap
    )
    mlp = partial(Mlp, width, mlp_width, width, dropout=dropout, activation=activation)
    blocks = nn.ModuleList()
    for rate in drop_path_ramp(stochastic_depth, depth):
        drop_path = StochasticDepth(rate, stochastic_depth_rescale)
        made = {axis: attention(axes=axis) for axis in sorted(axes, reverse=True)}  # time draws its weights first
        both = [made[axis] for axis in axes]
        if len(both) == 1:
            blocks.append(TransformerBlock(width, both[0], mlp(), drop_path, norm_eps, layer_scale))
        else:
            arguments = (both[0], both[1]), mlp(), drop_path, norm_eps, layer_scale, num_prefix
            blocks.append(FactorisedSelfAttentionBlock(width, *arguments))
    return blocks
