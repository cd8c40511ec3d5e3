"""Published image models and TimeSformer: values of the original libraries, reproduced from their files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.embedding import resize_patch
from vidtl.models.weights.families import find_reader
from vidtl.models.weights.load import load_weights

CLIPS = ("frame_size", "num_frames", "short_side")


def read(folder, **changes):
    """Read a directory as it was saved."""
    config, state = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    config |= {"preprocessor": {}, **changes}
    return find_reader(config, state)(config, state, str(folder))


def build(published, **clip):
    """Build the model as published, with all of its weights."""
    shape = {key: published.clip[key] for key in CLIPS if key in published.clip}
    head = published.weights.state.get("head.weight")
    stage = TokenLearnerConfig(num_tokens=0)
    config = ModelConfig(**published.model, token_learner=stage)
    model = build_model(
        config, ClipConfig(**{"num_frames": 1, **shape, **clip}), 2 if head is None else len(head)
    ).eval()
    report = load_weights(model, published.weights, allow_missing=["head.*"] if head is None else [])
    assert all(name.startswith("head.") for name in report.missing)
    return model


def assert_close(ours, reference):
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() <= 1e-5 * max(1.0, reference.abs().max())


def golden_set(golden, name):
    folder = golden / "foundation" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    with np.load(folder / "io.npz") as archive:
        return read(folder), {key: torch.from_numpy(archive[key]) for key in archive.files}


TIMM = ("augreg", "clip_laion", "clip_openai_quickgelu", "deit3", "dinov2", "dinov2_reg", "mae", "siglip")
HF = ("clip_full", "clip_vision", "clip_vision_projection", "clip_vision_v5", "dinov2", "dinov2_registers")
HF = (*HF, "siglip_full", "siglip_vision", "vit")


@torch.no_grad()
@pytest.mark.parametrize("name", [*(f"timm_{name}" for name in TIMM), *(f"hf_{name}" for name in HF)])
def test_golden_image_models(golden, name):
    published, reference = golden_set(golden, name)
    image = reference["pixel_values"][:, None]
    model = build(published)
    assert_close(model.forward_features(image), reference["pooled"])
    if "logits" in reference:
        assert_close(model(image), reference["logits"])
    if name.startswith("hf_clip"):  # transformers norms the class token alone
        model.encoder.norm = nn.Identity()
    assert_close(model.forward_tokens(image)[:, 0], reference["tokens"])
    assert_close(build(published, num_frames=3).forward_features(image.expand(-1, 3, -1, -1, -1)), reference["pooled"])


@torch.no_grad()
def test_golden_timesformer(golden):
    published, reference = golden_set(golden, "timesformer")
    model, clip = build(published), reference["pixel_values"]
    assert_close(model(clip), reference["logits"])
    assert_close(model.forward_features(clip), reference["pooled"])
    tokens_BtND = model.forward_tokens(clip)
    patches = tokens_BtND[:, :, 1:].transpose(1, 2).flatten(1, 2)  # time innermost
    assert_close(torch.cat([tokens_BtND[:, 0, :1], patches], dim=1), reference["tokens"])


def test_golden_patch_resize(golden):
    path = golden / "foundation/patch_resize.npz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    with np.load(path) as archive:
        expected = {name: torch.from_numpy(archive[name]) for name in archive.files}
    kernel = expected.pop("kernel").flatten(1)
    for name, reference in expected.items():
        resizing = "bilinear" if name.startswith("bilinear") else "bicubic_antialiased"
        resized = resize_patch(kernel, (1, 8, 8), (1, *reference.shape[2:]), resizing)
        assert_close(resized, reference.flatten(1))
        frames = resize_patch(torch.cat([kernel, kernel], dim=1), (2, 8, 8), (2, *reference.shape[2:]), resizing)
        assert_close(frames, torch.cat([resized, resized], dim=1))


REASONS = {
    "vit_giant_patch14_dinov2": ("blocks.0.mlp.fc1.weight [256, 48]", "SwiGLU"),
    "eva02_base_patch14_224": ("fc1_g", "SwiGLU"),
    "vit_base_patch16_rope_reg1_gap_256": ("q_bias", "rotary"),
    "vit_base_patch16_dinov3": ("without position embedding", "rotary"),
    "beit_base_patch16_224": ("relative_position_bias_table", "relative positions"),
    "vit_base_patch16_rpn_224": ("architecture", "norms after"),
    "vit_base_patch16_xp_224": ("q_norm", "norms"),
    "deit_base_distilled_patch16_224": ("dist_token", "distilled"),
    "aimv2_large_patch14_224": ("fc1_g", "SwiGLU"),
    "vit_small_patch16_18x2_224": ("attns", "side by side"),
    "use_swiglu_ffn": ("weights_in", "SwiGLU"),
    "resolution": ("[48, 192]", "patches"),
}


def test_golden_refusals(golden):
    path = golden / "foundation/refuse.json"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    for label, shapes in json.loads(path.read_text()).items():
        name = label.split()[-1]
        state = {key: torch.zeros(shape) for key, shape in shapes.items()}
        config = {"architecture": name}
        if label.startswith("transformers"):
            config = {"model_type": "siglip_vision_model" if "Siglip2" in label else "dinov2"}
        with refused("somewhere", *REASONS.get(name, ()), "allowed: learned positions"):
            find_reader(config, state)(config, state, "somewhere")
        if "architecture" in config and "rpn" not in name:  # a bare file
            with refused("somewhere", *REASONS.get(name, ()), "allowed: learned positions"):
                find_reader({}, state)({}, state, "somewhere")
