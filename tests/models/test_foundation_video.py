"""VideoMAE and VideoPrism as published: outputs of the original libraries, reproduced from their files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.models.weights.families import find_reader
from vidtl.models.weights.load import load_weights, read_json, read_npz, read_state

VIDEOMAE = (
    *("videomae_classification", "videomae_classification_first_token", "videomae_pretraining"),
    *("videomae_authors_finetuned", "videomae_authors_pretraining"),
)
VIDEOPRISM = ("videoprism_vision", "videoprism_classification", "videoprism_flax", "videoprism_flax_classifier")


def read(folder: Path):
    """Read a folder of a config.json and one file of weights."""
    config = read_json(folder / "config.json")
    names = ("model.safetensors", "checkpoint.pth", "weights.npz")
    file = next(folder / name for name in names if (folder / name).exists())
    if file.suffix == ".npz":
        state = {name: torch.from_numpy(array) for name, array in read_npz(file).items()}
    else:
        state = read_state(file)
    return find_reader(config, state)(config, state, str(folder))


def build(published, **clip):
    """Build the model as published, or at another clip."""
    config = ModelConfig(**published.model, token_learner=TokenLearnerConfig(num_tokens=0))
    head = published.weights.state.get("head.weight", torch.empty(3))
    model = build_model(config, ClipConfig(**{**published.clip, **clip}), len(head)).eval()
    allowed = () if published.weights.class_names or head.ndim == 2 else ("head.*",)
    report = load_weights(model, published.weights, allow_missing=allowed)
    assert report.unexpected == ()
    return model, report


def clip_of(video_BTCHW):
    return {"num_frames": video_BTCHW.shape[1], "frame_size": tuple(video_BTCHW.shape[3:]), "short_side": 64}


def assert_same(ours, reference):
    assert ours.shape == reference.shape
    error = (ours - reference).abs().max().item()
    assert error <= 1e-5 * max(1.0, reference.abs().max().item())


@torch.no_grad()
@pytest.mark.parametrize("name", [*VIDEOMAE, *VIDEOPRISM])
def test_golden(golden, name):
    folder = golden / "foundation" / name
    published = read(folder)
    model, report = build(published)
    with np.load(folder / "io.npz") as archive:
        io = {name: torch.from_numpy(archive[name]) for name in archive.files}
    orders = {"pixel_values": "BTCHW", "input_BCTHW": "BCTHW", "input_BTHWC": "BTHWC"}
    for key, order in orders.items():
        if key in io:
            video = torch.einsum(f"{order}->BTCHW", io[key])
            print(name, report.unused)
    tokens = model.forward_tokens(video)
    assert_same(tokens.flatten(1, 2), io["tokens"])
    if "pooled" in io:
        assert_same(model.forward_features(video), io["pooled"])
        assert_same(model(video), io["logits"])
