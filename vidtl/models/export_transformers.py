"""Export of joint ViViTs as directories of transformers, read back and compared before they get their names."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vidtl.config.checks import require
from vidtl.config.load import dotted
from vidtl.models.base import CONFIG_FILE, WEIGHTS_FILE, VideoModel
from vidtl.models.embedding import TubeletEmbedding
from vidtl.models.export import TOLERANCE, Check, compare
from vidtl.models.weights.published import load_published
from vidtl.runtime.files import new_directory

_NEEDED = {
    "architecture": "vivit",
    "form": "joint",
    "token_learner.num_tokens": 0,
    "tokenizer": "tubelet",
    "tubelet_sampling": "tubelet",
    "pooling": "cls",
    "positions": "learned",
    "num_registers": 0,
    "input_norm": False,
    "layer_scale": 0,
    "attention_softcap": 0,
}
"""Settings of the models that transformers has."""

_HIDDEN_ACT = {"gelu": "gelu", "gelu_tanh": "gelu_fast", "quick_gelu": "quick_gelu"}

_NAMES = (
    (r"^head\.", "classifier."),
    (r"^encoder\.cls$", "vivit.embeddings.cls_token"),
    (r"^encoder\.positions\.weight$", "vivit.embeddings.position_embeddings"),
    (r"^embed\.proj\.", "vivit.embeddings.patch_embeddings.projection."),
    (r"^encoder\.norm\.", "vivit.layernorm."),
    (r"^encoder\.blocks\.", "vivit.encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.q\.", ".attention.attention.query."),
    (r"\.attn\.k\.", ".attention.attention.key."),
    (r"\.attn\.v\.", ".attention.attention.value."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def export_transformers(model: VideoModel, directory: Path, tolerance: float = TOLERANCE) -> Check:
    """Write `config.json`, `model.safetensors` and `preprocessor_config.json`, and compare with the logits of `model`.

    The model, on the CPU, is left in evaluation mode. UserError: no joint ViViT with class token and learned positions,
    a directory with files, or a difference above `tolerance`, a share of the largest logit.
    """
    settings, short_side = dotted(asdict(model.model_config)), model.clip_config.short_side
    require(short_side > 0, "clip.short_side", short_side, "above 0 with format transformers")
    for key, needed in _NEEDED.items():
        require(settings[key] == needed, f"model.{key}", settings[key], f"{needed!r} with format transformers")
    with new_directory(directory) as temporary:
        for name, content in ((CONFIG_FILE, _config(model)), ("preprocessor_config.json", _preprocessor(model))):
            (temporary / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        save_file(_state(model), temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        written = load_published(str(temporary))
        check = compare(model.eval(), written.eval(), batch=1)
        check.require(directory, tolerance)
    return check


def _config(model: VideoModel) -> dict[str, Any]:
    settings, clip = model.model_config, model.clip_config
    height, width = clip.frame_size
    names = model.class_names or [f"LABEL_{number}" for number in range(model.num_classes)]
    config = {
        "architectures": ["VivitForVideoClassification"],
        "model_type": "vivit",
        "image_size": height if height == width else [height, width],
        "num_frames": clip.num_frames,
        "tubelet_size": settings.tubelet,
        "num_channels": 3,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.num_heads,
        "intermediate_size": settings.mlp_width,
        "hidden_act": _HIDDEN_ACT[str(settings.activation)],
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.attention_dropout,
        "layer_norm_eps": settings.norm_eps,
        "qkv_bias": True,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return config | ({"problem_type": "multi_label_classification"} if model.multi_label else {})


def _preprocessor(model: VideoModel) -> dict[str, Any]:
    """Describe the pixels for ViViT's processors, which first bring them to [-1, 1], the one for videos always."""
    clip = model.clip_config
    return {
        "image_processor_type": "VivitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": clip.short_side},
        "resample": 2,  # bilinear
        "do_center_crop": True,
        "crop_size": dict(zip(("height", "width"), clip.frame_size, strict=True)),
        "do_rescale": True,
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "do_normalize": True,
        "image_mean": [2 * each - 1 for each in clip.mean],
        "image_std": [2 * each for each in clip.std],
    }


def _state(model: VideoModel) -> dict[str, Tensor]:
    state = {}
    embed = model.embed
    assert isinstance(embed, TubeletEmbedding)
    for name, tensor in model.state_dict().items():
        if name == "embed.proj.weight":
            tensor = tensor.unflatten(1, (3, *embed.tubelet))  # [D, C t h w]
        elif name in ("encoder.cls", "encoder.positions.weight"):
            tensor = tensor.reshape(1, -1, tensor.shape[-1])  # [D] or [N, D]
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor.contiguous()
    return state
