"""Published image models and TimeSformer: values of the original libraries, reproduced from their files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
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
    model = build_model(config, ClipConfig(**{"num_frames": 1, **shape, **clip}), 2 if head is None else len(head)).eval()
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
