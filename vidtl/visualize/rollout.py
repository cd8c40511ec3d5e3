"""Attention rollout: the share of each place and time of a clip in the pooled features of a ViViT.

Source: Abnar and Zuidema, "Quantifying attention flow in transformers" (ACL 2020), section 3. With W_l the attention
probabilities of layer l, mean over its heads, and the residual connection as one half of every layer:

    rollout_l = A_l rollout_(l-1),    A_l = (W_l + I) / 2,    rollout_0 = I

The probabilities are computed again from the inputs of each layer in an ordinary forward pass.
Axes: B clips, t timesteps, N tokens of a timestep, L tokens that entered an encoder, h w token grid.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from numpy.typing import NDArray
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.attention import SEQUENCES, Attention
from vidtl.models.base import evaluation_mode
from vidtl.models.encoder import Encoder
from vidtl.models.vivit import ViViT

Layer = tuple[Attention, Tensor]  # and its input tokens `[B, t, N, D]`


def clip_rollout(model: nn.Module, input_BTCHW: Tensor) -> NDArray[np.float32]:
    """Compute the rollout [t, h, w] of the first clip of a batch, in evaluation mode; it sums to 1.

    It starts from the class token or first patch, or from all tokens alike where the model pools them (an approximation
    for `max` and for attention with a learned query). The share of class token and registers is left out. In the
    factorised encoder each timestep has one rollout, weighted by that of the temporal encoder. Two attentions per block
    are two layers; heads over time and heads over space are heads of one.

    UserError: no ViViT, or one with TokenLearner, or a class token in blocks that attend over time and space apart.
    """
    if not isinstance(model, ViViT):
        raise UserError(f"attention rollout needs a ViViT in one of its four forms, not {type(model).__name__}")
    if model.encoder.token_learners:
        raise UserError("attention rollout is not defined for TokenLearner's tokens; draw their token maps")
    if model.encoder.num_prefix and model.form in ("factorised_self_attention", "factorised_dot_product"):
        raise UserError(f"attention rollout is not defined for form {model.form} with a class token or registers")
    with (
        evaluation_mode(model),
        torch.inference_mode(),
        _recorded(model.encoder) as layers,
        _recorded(model.temporal_encoder) as later,
    ):
        model(input_BTCHW[:1])
        flow_L = _flow(model, layers, later).float().cpu()
    grid = model.grid
    maps_thw: NDArray[np.float32] = rearrange(flow_L / flow_L.sum(), "(t h w) -> t h w", t=grid.t, h=grid.h).numpy()
    return maps_thw


def rollout(layers: Sequence[Layer]) -> Tensor:
    """Compute rows `[B, t, N, L]` of the rollout, each summing to 1; L is t N, or N if no layer mixes timesteps."""
    batch, timesteps, tokens, _ = layers[0][1].shape
    separate = all(attention.axes == "space" for attention, _ in layers)
    identity = torch.eye(tokens if separate else timesteps * tokens, device=layers[0][1].device)
    pattern = "N L -> B t N L" if separate else "(t N) L -> B t N L"
    rows = repeat(identity, pattern, B=batch, t=timesteps)
    for attention, tokens_BtND in layers:
        rows = (_attended(attention, tokens_BtND, rows) + rows) / 2
    return rows


def mean_probabilities(q_BLD: Tensor, k_BLD: Tensor, num_heads: int, softcap: float = 0.0) -> Tensor:
    """Average softmax(q kᵀ / √d) over the heads: `[B, L, L]`; one head at a time to save memory."""
    q, k = (rearrange(part.float(), "B L (H d) -> H B L d", H=num_heads) for part in (q_BLD, k_BLD))
    mean = torch.zeros((), device=q.device)
    for q_BLd, k_BLd in zip(q, k, strict=True):
        logits = q_BLd @ k_BLd.mT * q_BLd.shape[-1] ** -0.5
        logits = softcap * torch.tanh(logits / softcap) if softcap else logits
        mean = mean + torch.softmax(logits, dim=-1) / num_heads
    return mean


def _attended(attention: Attention, tokens_BtND: Tensor, rows_BtNL: Tensor) -> Tensor:
    batch, timesteps, tokens, _ = tokens_BtND.shape
    sequences = [pattern.replace("H ", "").replace("d", "D") for pattern in SEQUENCES[attention.axes]]
    q, k = (layer(tokens_BtND).chunk(len(sequences), dim=-1) for layer in (attention.q, attention.k))
    mixed = torch.zeros_like(rows_BtNL)
    for pattern, q_BtND, k_BtND in zip(sequences, q, k, strict=True):
        q_BLD, k_BLD, rows = (rearrange(x, f"B t N D -> {pattern}") for x in (q_BtND, k_BtND, rows_BtNL))
        weights = mean_probabilities(q_BLD, k_BLD, attention.num_heads // len(sequences), attention.softcap)
        mixed += rearrange(weights @ rows, f"{pattern} -> B t N D", B=batch, t=timesteps, N=tokens) / len(sequences)
    return mixed


def _flow(model: ViViT, layers: Sequence[Layer], later: Sequence[Layer]) -> Tensor:
    """Compute the share of each of the t N tokens of the clip in the pooled features."""
    rows_tNL = rollout(layers)[0]
    from_first, num_prefix = model.pooling in ("cls", "first"), model.encoder.num_prefix
    if not model.factorised:
        return _pooled(rows_tNL, num_prefix, from_first)
    weights_tN = rows_tNL.new_full((len(rows_tNL), 1), 1 / len(rows_tNL))
    if model.temporal_encoder is not None and later:
        temporal = _pooled(rollout(later)[0], model.temporal_encoder.num_prefix, model.pooling == "cls")
        weights_tN = rearrange(temporal, "(t N) -> t N", t=len(rows_tNL))
    if model.temporal_input == "pooled":
        by_timestep = torch.stack([_pooled(rows_NL[None], num_prefix, from_first) for rows_NL in rows_tNL])
        return (weights_tN * by_timestep).flatten()
    return torch.einsum("tN,tNL->tL", weights_tN, rows_tNL).flatten()


def _pooled(rows_tNL: Tensor, num_prefix: int, from_first: bool) -> Tensor:
    """Return the row of the pooled features, less the prefix tokens, summing to 1: `[L - P]`."""
    row_L = rows_tNL[0, 0] if from_first else reduce(rows_tNL[:, num_prefix:], "t N L -> L", "mean")
    return row_L[num_prefix:] / row_L[num_prefix:].sum()


@contextmanager
def _recorded(encoder: Encoder | None) -> Iterator[list[Layer]]:
    layers: list[Layer] = []
    with ExitStack() as hooks:
        for part in encoder.modules() if encoder else ():
            if isinstance(part, Attention):
                hook = part.register_forward_pre_hook(lambda part, inputs: layers.append((part, inputs[0])))
                hooks.enter_context(hook)
        yield layers
