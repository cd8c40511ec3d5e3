"""Parameters of the authors' Flax code: ViViT, TokenLearner and the image ViTs they start from.

Layouts that differ from PyTorch's: linear kernels are [in, out]; query, key and value kernels [D, heads, head width];
the output kernel [heads, head width, D]; convolution kernels end in [..., in, out].
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from vidtl.errors import UserError
from vidtl.models.embedding import Grid
from vidtl.models.weights.files import read_npz
from vidtl.models.weights.load import PublishedModel, SourceWeights, count_modules

Params = Mapping[str, Tensor]

ENCODERS = {"Transformer": "encoder", "SpatialTransformer": "encoder", "TemporalTransformer": "temporal_encoder"}

# The first pattern that matches a whole path names it; kernels, scales and biases become weights and biases afterwards.
_PATHS = [
    (r"embedding", r"embed.proj"),
    (r"(?:output_projection|head)", r"head"),
    (r"cls(?:_SpatialTransformer)?", r"encoder.cls"),
    (r"cls_TemporalTransformer", r"temporal_encoder.cls"),
    (r"(\w+)/posembed_input/pos_embedding", r"{0}.positions.weight"),
    (r"(\w+)/encoder_norm", r"{0}.norm"),
    (r"(\w+)/encoderblock_(\d+)/LayerNorm_0", r"{0}.blocks.{1}.norm1"),
    (r"(\w+)/encoderblock_(\d+)/LayerNorm_[12]", r"{0}.blocks.{1}.norm2"),
    (r"(\w+)/encoderblock_(\d+)/LayerNorm_(space|time|mlp)", r"{0}.blocks.{1}.norm_{2}"),
    (r"(\w+)/encoderblock_(\d+)/MultiHeadDotProductAttention_[01]/(\w+)", r"{0}.blocks.{1}.attn.{2}"),
    (r"(\w+)/encoderblock_(\d+)/MultiHeadDotProductAttention_(space|time)/(\w+)", r"{0}.blocks.{1}.attn_{2}.{3}"),
    (r"(\w+)/encoderblock_(\d+)/MlpBlock(?:_\d)?/(Dense_[01])", r"{0}.blocks.{1}.mlp.{2}"),
    (r"(\w+)/TokenLearnerModule(?:V11)?_(\d+)/LayerNorm_0", r"{0}.token_learners.{1}.norm"),
    (r"(\w+)/TokenLearnerModule_(\d+)/Conv_(\d)", r"{0}.token_learners.{1}.score.convs.{2}"),
    (r"(\w+)/TokenLearnerModuleV11_(\d+)/token_masking/(Dense_[01])", r"{0}.token_learners.{1}.score.{2}"),
    (r"(\w+)/TokenFuser_(\d+)/fuser_mix_norm([12])", r"{0}.token_fusers.{1}.norm{2}"),
    (r"(\w+)/TokenFuser_(\d+)/Dense_0", r"{0}.token_fusers.{1}.mix"),
    (r"(\w+)/TokenFuser_(\d+)/LayerNorm_0", r"{0}.token_fusers.{1}.norm_features"),
    (r"(\w+)/TokenFuser_(\d+)/token_masking/(Dense_[01])", r"{0}.token_fusers.{1}.score.{2}"),
]
_PARTS = ENCODERS | {"query": "q", "key": "k", "value": "v", "out": "proj", "Dense_0": "fc1", "Dense_1": "fc2"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LEARNERS = {"v1": "TokenLearnerModule", "v1.1": "TokenLearnerModuleV11"}
_ROOTS = ("param:", "optimizer/target/", "target/", "params/")  # the latter of training states
_STACKED = re.compile("/(encoderblock|x_layers)/")


def read_flax(path: Path) -> dict[str, Tensor]:
    """Read the parameters of a `.npz` file by Flax path (`Transformer/encoder_norm/scale`).

    Where entries have one of `_ROOTS`, only these are parameters. Blocks in one array (`_STACKED`) are separated.
    """
    params = read_npz(path)
    for root in _ROOTS:
        if any(name.startswith(root) for name in params):
            params = {name.removeprefix(root): array for name, array in params.items() if name.startswith(root)}
    for name in filter(_STACKED.search, [*params]):
        for block, part in enumerate(params.pop(name)):
            params[_STACKED.sub(rf"/\1_{block}/", name)] = part
    return {name: torch.as_tensor(array) for name, array in params.items()}


def flax_weights(params: Params, source: str) -> SourceWeights:
    """Convert flat parameters to the names and layouts of this library; names without a counterpart are reported."""
    names = {path: _rename(path) for path in params}
    state = {name: _convert(path, params[path]) for path, name in names.items() if name is not None}
    unexpected = [path for path, name in names.items() if name is None]
    return SourceWeights(source=source, state=state, unexpected=unexpected)


def read_flax_vivit(_: Mapping[str, Any], params: Params, source: str) -> PublishedModel:
    """Read a ViViT; factorised_dot_product looks joint, and TokenLearner's place is open unless TokenFuser follows."""
    kernel = params.get("embedding/kernel")
    if kernel is None or kernel.ndim != 5:
        raise UserError(f"{source} has no embedding/kernel of shape [t, h, w, 3, D]; allowed: parameters of a ViViT")
    root, form, attention, mlp = "Transformer", "joint", "MultiHeadDotProductAttention_0", "MlpBlock_0"
    if any(path.startswith("SpatialTransformer/") for path in params):
        root, form = "SpatialTransformer", "factorised_encoder"
    if f"{root}/encoderblock_0/MultiHeadDotProductAttention_space/query/kernel" in params:
        form, attention, mlp = "factorised_self_attention", "MultiHeadDotProductAttention_space", "MlpBlock"
    depth = count_modules(params, rf"{root}/encoderblock_(\d+)/")
    model = {
        "architecture": "vivit",
        "form": form,
        "activation": "gelu_tanh",
        "width": kernel.shape[-1],
        "depth": depth,
        "num_heads": params[f"{root}/encoderblock_0/{attention}/query/kernel"].shape[1],
        "mlp_width": params[f"{root}/encoderblock_0/{mlp}/Dense_0/kernel"].shape[1],
        "temporal_depth": count_modules(params, r"TemporalTransformer/encoderblock_(\d+)/"),
        "tubelet": tuple(kernel.shape[:3]),
        "pooling": "cls" if "cls" in params or "cls_SpatialTransformer" in params else "mean",
    }
    model |= _token_learner(params, depth)
    return PublishedModel(model=model, clip={}, weights=flax_weights(params, source))


def _token_learner(params: Params, depth: int) -> dict[str, Any]:
    counts = {version: count_modules(params, rf"Transformer/{name}_(\d+)/") for version, name in _LEARNERS.items()}
    version = "v1" if counts["v1"] else "v1.1"
    if not counts[version]:
        return {}
    last = "Conv_3" if version == "v1" else "token_masking/Dense_1"
    num_tokens = params[f"Transformer/{_LEARNERS[version]}_0/{last}/kernel"].shape[-1]
    fuser = any("/TokenFuser_0/" in path for path in params)
    place = {"after_block": depth - counts[version]} if fuser else {}
    return {"token_learner": {"num_tokens": num_tokens, **place, "version": version, "fuser": fuser}}


def read_flax_vit(_: Mapping[str, Any], params: Params, source: str) -> PublishedModel:
    """Read an image ViT, for each frame of a clip, or a ViViT of single frames, with positions of no square."""
    weights = flax_weights(params, source)
    left_out = [name for name in weights.unexpected if re.match(r"pre_logits\b|MAPHead|fc_norm", name)]
    attention = next(name for name in params if re.search(r"encoderblock_0/.*query/kernel", name))
    height, width = params["embedding/kernel"].shape[:2]
    model = {
        "tubelet": (1, height, width),
        "pooling": "cls" if "encoder.cls" in weights.state else "mean",
        "activation": "gelu_tanh",
        "width": params["embedding/kernel"].shape[-1],
        "depth": count_modules(params, r"Transformer/encoderblock_(\d+)/"),
        "num_heads": params[attention].shape[1],
        "mlp_width": weights.state["encoder.blocks.0.mlp.fc1.weight"].shape[0],
    }
    size = len(weights.state["encoder.positions.weight"]) - ("encoder.cls" in weights.state)
    side = isqrt(size)
    if side * side != size:
        return PublishedModel(model={**model, "tubelet_sampling": "uniform"}, clip={}, weights=weights)
    frame = (height * side, width * side)
    found = replace(
        weights,
        grids={"encoder.positions.weight": Grid(1, side, side)},
        unused=left_out,
        unexpected=[name for name in weights.unexpected if name not in left_out],
        resizing="bilinear_antialiased",
    )
    alone = {"form": "factorised_encoder", "temporal_depth": 0}
    return PublishedModel(model=model | alone, clip={"frame_size": frame, "short_side": max(frame)}, weights=found)


def _rename(path: str) -> str | None:
    """Return the name of this library for a Flax path, or `None`."""
    module, _, leaf = path.rpartition("/")
    target, suffix = (module, f".{_LEAVES[leaf]}") if leaf in _LEAVES else (path, "")
    for pattern, template in _PATHS:
        if match := re.fullmatch(pattern, target):
            if match.groups() and match[1] not in ENCODERS:
                return None
            return template.format(*(_PARTS.get(part, part) for part in match.groups())) + suffix
    return None


def _convert(path: str, tensor: Tensor) -> Tensor:
    """Convert one parameter to PyTorch's layout, in float32."""
    tensor = tensor.float()
    leaf = path.rpartition("/")[2]
    if leaf == "pos_embedding":
        return tensor.squeeze(0)
    if leaf.startswith("cls") or leaf == "bias":
        return tensor.flatten()  # a query, key or value bias is [heads, head width]
    if leaf != "kernel":
        return tensor
    if path == "embedding/kernel":
        return rearrange(tensor, "... C D -> D C ...").flatten(1)  # type: ignore[no-any-return]
    if tensor.ndim == 3:
        return rearrange(tensor, "H d D -> D (H d)" if "/out/" in path else "D H d -> (H d) D")  # type: ignore[no-any-return]
    if tensor.ndim == 4:
        return rearrange(tensor, "h w D S -> S D h w")  # type: ignore[no-any-return]
    return tensor.T.contiguous()
