"""timm's VisionTransformer: AugReg, MAE, DINO, DeiT, DeiT III, CLIP, SigLIP, DINOv2; directories and bare files.

Their authors' `.pth` files have timm's names or small variants of them. open_clip's names are read, too. Which heads,
epsilon and activation belong to an architecture: measured on all architectures of timm 1.0.31.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, get_args

from torch import Tensor

from vidtl.config.checks import require, require_choice
from vidtl.errors import UserError
from vidtl.models.blocks import Activation
from vidtl.models.weights.image_vit import check_image_vit, publish_image_vit, refuse
from vidtl.models.weights.load import PublishedModel, rename
from vidtl.models.weights.settings import pair, shape_of

_log = logging.getLogger(__name__)

TIMM_NAMES = (
    (r"^cls_token$", "encoder.cls"),
    (r"^reg(ister)?_tokens?$", "encoder.registers"),
    (r"^pos_embed$", "encoder.positions.weight"),
    (r"^patch_embed\.", "embed."),
    (r"^norm_pre\.", "encoder.input_norm."),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # chunks of blocks in DINOv2's training
    (r"^(blocks|norm)\.", r"encoder.\1."),
    (r"\.ls([12])\.gamma$|\.gamma_([12])$", r".scale\1\2.weight"),
    (r"^fc_norm\.", "pool.norm."),
    (r"^attn_pool\.latent$", "pool.probe"),
    (r"^attn_pool\.", "pool."),
)

_OPEN_CLIP_NAMES = (
    (r"^visual\.", ""),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^proj$", "head.weight"),
)

_HEADS = {1152: 16, 1280: 16, 1408: 16, 1536: 16, 1664: 16}  # by width, where they are not 64 wide

_QUICK_GELU = (
    r"quickgelu|\.openai$|\.metaclip_(400m|2pt5b)$|huge.*_224\.metaclip2_worldwide$|"
    r"\.dfn5b$|large.*\.dfn2b$|patch32.*\.laion400m"
)
"""Architectures and tags of CLIP whose weights were trained with QuickGELU."""

_TANH_GELU = r"(patch32|giantopt_patch16)_siglip|so400m_patch16_siglip|large_patch16_siglip_(gap_)?512"
"""Architectures that timm builds with the approximation by tanh, as SigLIP was trained; the others are exact."""


def read_timm(config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Convert weights and settings, with the activation of training; without config.json, warn of what was assumed."""
    architecture, arguments = config.get("architecture", ""), config.get("model_args") or {}
    if other := re.search(r"_(rpn|rope|pe)_", architecture):  # the names of some are those of a plain ViT
        what = "norms after the branches" if other[1] == "rpn" else "rotary positions"
        refuse(source, f"architecture {architecture}", what)
    kept, unused = _image_tower(state)
    check_image_vit(kept, source)
    renamed = rename(kept, TIMM_NAMES)
    published = config.get("pretrained_cfg", config)
    width = shape_of(renamed, "embed.proj.weight", source)[0]
    pooling = arguments.get("global_pool", config.get("global_pool", ""))
    require(pooling in ("", "token", "avg", "map"), f"{source}: global_pool", pooling, "'token', 'avg', 'map'")
    settings = {
        "num_heads": _num_heads(architecture, arguments, width, source),
        "activation": _activation(architecture, arguments, published, source),
        "norm_eps": 1e-5 if "encoder.input_norm.weight" in renamed else 1e-6,
    }
    if not config:
        found = ", ".join(f"{key} {value}" for key, value in settings.items())
        _log.warning("%s has no config.json; assumed: %s, and clip.mean and clip.std of the run", source, found)
    size = arguments.get("img_size") or published.get("input_size", ())[1:]
    return publish_image_vit(
        renamed, source, settings, clip=_read_clip(published), resizing="bicubic_antialiased",
        image_size=pair(size) if size else None, averages=pooling == "avg",
        class_names=config.get("label_names") or (), unused=unused,
    )  # fmt: skip


def _image_tower(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the image model under timm's names, and the names of text models and of parts for masked training."""
    has_text = any(name.startswith("visual.") for name in state)
    left_out = r"(?!visual\.)" if has_text else r"mask_token|decoder_"
    unused = [name for name in state if re.match(left_out, name)]
    kept = {name: tensor for name, tensor in state.items() if name not in unused}
    if has_text or "conv1.weight" in kept:
        kept = rename(kept, _OPEN_CLIP_NAMES)
        if "head.weight" in kept:
            kept["head.weight"] = kept["head.weight"].T  # [D, projection]
    return kept, unused


def _num_heads(architecture: str, arguments: Mapping[str, Any], width: int, source: str) -> int:
    if "num_heads" in arguments:
        return int(arguments["num_heads"])
    if architecture.startswith("vit_base_patch16_gap_224"):
        return 16
    if width % 64 and width not in _HEADS:
        allowed = f"model_args.num_heads in config.json, or a multiple of 64 or one of {', '.join(map(str, _HEADS))}"
        raise UserError(f"{source}: the number of heads is open at width {width}; allowed: {allowed}")
    return _HEADS.get(width, width // 64)


def _activation(
    architecture: str, arguments: Mapping[str, Any], published: Mapping[str, Any], source: str
) -> Activation:
    """Return the activation of training for CLIP, and for other models that of timm's architecture."""
    if (name := arguments.get("act_layer")) is not None:
        require_choice(f"{source}: act_layer", name, get_args(Activation))
        return name  # type: ignore[no-any-return]
    tag = published.get("tag") or ""
    if "_clip_" in architecture and re.search(_QUICK_GELU, f"{architecture}.{tag}"):
        if "quickgelu" not in architecture:
            _log.warning("%s: quick_gelu, with which %s was trained; timm's %s has gelu", source, tag, architecture)
        return "quick_gelu"
    return "gelu_tanh" if re.search(_TANH_GELU, architecture) else "gelu"


def _read_clip(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return frame size, resize before the crop, mean and std of the evaluation."""
    if "mean" not in published:
        return {}
    size = pair(published["input_size"][1:])
    return {
        "frame_size": size,
        "short_side": 2 * round(max(size) / published.get("crop_pct", 1.0) / 2),
        "mean": tuple(published["mean"]),
        "std": tuple(published["std"]),
    }
