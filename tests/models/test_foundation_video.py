"""VideoMAE and VideoPrism as published: outputs of the original libraries, reproduced from their files."""

import logging
import re

import numpy as np
import pytest
import torch

from tests.models.published import assert_close, build, clip_of
from tests.refusals import refused
from vidtl.models.weights.families import find_reader
from vidtl.models.weights.files import read_json, read_state
from vidtl.models.weights.flax import read_flax

ORDERS = {"pixel_values": "BTCHW", "input_BCTHW": "BCTHW", "input_BTHWC": "BTHWC"}
CLASS_NAMES = ["zebra", "apple pie", "walk", "run", "Ünïcode"]


def load(folder):
    names = ("model.safetensors", "checkpoint.pth", "weights.npz")
    file = next(folder / name for name in names if (folder / name).exists())
    return read_json(folder / "config.json"), (read_flax if file.suffix == ".npz" else read_state)(file)


def read(config, state):
    return find_reader(config, state)(config, state, "FILE")


def module_names(config, state):
    """Names of the modules of transformers 5, which saved files do not have."""
    full = {".q_bias": ".query.bias", ".v_bias": ".value.bias"}
    return config, {re.sub(r"\.[qv]_bias$", lambda match: full[match[0]], name): x for name, x in state.items()}


def under_backbone(config, state):
    return config, {f"backbone.{name}": tensor for name, tensor in state.items()}


def opengvlab(config, state):
    nested = {"model_type": "VideoMAEv2_Base", "model_config": config}
    return nested, {f"model.{name}": tensor for name, tensor in state.items()}


def with_layer_scale(config, state):
    """Half of each branch, times 2."""
    halved = {name: x / 2 if re.search(r"\.(attn\.proj|fc2)\.", name) else x for name, x in state.items()}
    blocks = {name.split(".norm1")[0] for name in state if ".norm1" in name}
    return config, halved | {f"{block}.gamma_{i}": torch.full((48,), 2.0) for block in blocks for i in (1, 2)}


def without_config(config, state):
    return {}, state


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((f"videomae_{name}", None) for name in ("classification", "classification_first_token", "pretraining")),
        *((f"videomae_authors_{name}", None) for name in ("finetuned", "pretraining")),
        *((f"videoprism_{name}", None) for name in ("vision", "classification", "flax", "flax_classifier")),
        ("videomae_classification", module_names),
        *(("videomae_authors_finetuned", change) for change in (under_backbone, opengvlab, with_layer_scale)),
        ("videoprism_flax_classifier", without_config),
    ],
)
def test_outputs_of_the_original_library(golden, name, change):
    folder = golden / "foundation" / name
    config, state = load(folder)
    published = read(*change(config, state) if change else (config, state))
    with np.load(folder / "io.npz") as archive:
        outputs = {name: torch.from_numpy(archive[name]) for name in archive.files}
    videos = {
        name.split("input")[0].split("pixel")[0]: torch.einsum(f"{ORDERS[key]}->BTCHW", video)
        for name, video in outputs.items()
        if (key := name.removeprefix("other_")) in ORDERS
    }
    for prefix, video in videos.items():
        model = build(published, **(clip_of(video) if prefix else {}))
        assert_close(model.forward_tokens(video).flatten(1, 2), outputs[f"{prefix}tokens"])
        if "logits" in outputs:
            assert_close(model.forward_features(video), outputs["pooled"])
            assert_close(model(video), outputs["logits"])
    assert published.weights.class_names == (CLASS_NAMES if "id2label" in config and "logits" in outputs else [])
    assert set(published.weights.unused) == {name for name in state if re.match(r"decoder|encoder_to|mask", name)}


VIDEOMAE = {"num_frames": 8, "patch_size": 8, "num_hidden_layers": 2, "num_labels": 5}
VIDEOPRISM = {"num_frames": 4, "tubelet_size": [1, 8, 8], "num_spatial_layers": 2, "num_temporal_layers": 1}
DECODER = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}


@torch.no_grad()
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("VideoMAEForPreTraining", VIDEOMAE | DECODER | {"use_mean_pooling": False}),
        ("VideoMAEModel", VIDEOMAE | {"use_mean_pooling": True}),
        ("VideoMAEForVideoClassification", VIDEOMAE | {"use_mean_pooling": True}),
        ("VideoMAEForVideoClassification", VIDEOMAE | {"use_mean_pooling": False}),
        ("VideoPrismVisionModel", VIDEOPRISM),
        ("VideoPrismForVideoClassification", VIDEOPRISM | {"num_labels": 5}),
    ],
)
def test_directories_of_transformers(tmp_path, architecture, settings):
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, architecture, None) or pytest.skip(f"transformers has no {architecture}")
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 120, "image_size": 32}
    torch.manual_seed(0)
    original = kind(kind.config_class(**sizes, **settings)).eval()
    for parameter in original.parameters():
        parameter.normal_(std=0.2)
    original.save_pretrained(tmp_path)
    published = read(*load(tmp_path))
    for num_frames, size in ((settings["num_frames"], (32, 32)), (6, (48, 32))):
        video = torch.randn(2, num_frames, 3, *size)
        if "MAE" in architecture:  # its positions are computed for the sizes in the settings
            original = kind.from_pretrained(tmp_path, image_size=list(size), num_frames=num_frames).eval()
            inputs = {"pixel_values": video}
        else:
            inputs = {"pixel_values_videos": video, "interpolate_pos_encoding": True}
        model = build(published, **clip_of(video))
        if "Classification" in architecture:
            assert_close(model(video), original(**inputs).logits.reshape(2, 5))
        else:
            encoder = getattr(original, "videomae", original)
            assert_close(model.forward_tokens(video).flatten(1, 2), encoder(**inputs).last_hidden_state)


def small_videomae(**more):
    """A part of a file of the authors' smallest model."""
    shapes = {"patch_embed.proj.weight": (384, 3, 2, 16, 16), "blocks.0.mlp.fc1.weight": (1536, 384), **more}
    return {name: torch.zeros(shape) for name, shape in shapes.items()} | {"blocks.0.attn.q_bias": torch.zeros(384)}


def test_settings_that_shapes_and_tables_give(caplog):
    bare = read({}, small_videomae(**{"head.weight": (400, 384)}))
    assert (bare.model["num_heads"], bare.model["norm_eps"], bare.model["pooled_norm_eps"]) == (6, 1e-6, 1e-6)
    assert (bare.clip["num_frames"], bare.clip["frame_size"], bare.clip["stride"]) == (16, (224, 224), 4)
    assert not caplog.records
    preprocessor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    config = {"model_type": "videomae", "num_attention_heads": 16, "preprocessor": preprocessor}
    with caplog.at_level(logging.WARNING):
        ssv2 = read(config, small_videomae(**{"head.weight": (174, 384)}))
    assert "num_attention_heads is 16" in caplog.text
    assert (ssv2.model["num_heads"], ssv2.model["norm_eps"], ssv2.model["pooled_norm_eps"]) == (16, 1e-12, 1e-5)
    assert (ssv2.clip["mean"], ssv2.clip["std"]) == ((0.5,) * 3, (0.25,) * 3)
    assert ssv2.clip["sampling"] == "segments"
    assert "stride" not in ssv2.clip


@pytest.mark.parametrize(
    ("name", "settings", "lost", "added", "parts"),
    [
        ("videomae_classification", {"hidden_act": "gelu_10"}, "", "", ["hidden_act", "gelu_10", "gelu"]),
        ("videomae_classification", {"id2label": {"1": "a"}}, "", "", ["id2label", "'a'"]),
        ("videomae_classification", {}, "patch_embeddings.projection", "", ["embed.proj.weight"]),
        ("videomae_classification", {}, "fc_norm", "", ["missing", "pool.norm.weight"]),
        ("videomae_authors_finetuned", {"num_heads": None}, "", "", ["heads", "width 48", "768"]),
        ("videomae_authors_finetuned", {}, "", "blocks.0.attn.scale", ["blocks.0.attn.scale", "cos_attn"]),
        ("videoprism_vision", {"hidden_act": "relu"}, "", "", ["hidden_act", "relu", "gelu"]),
        ("videoprism_vision", {}, "temporal_embeddings", "", ["temporal_encoder.positions.weight"]),
        ("videoprism_classification", {}, "per_dim_scale", "", ["pool.per_dim_scale"]),
        ("videoprism_classification", {}, "layernorm1.bias", "", ["missing", "encoder.norm.bias"]),
        ("videoprism_vision", {}, "", "auxiliary_layers.0.mlp.fc1.bias", ["auxiliary_layers.0.mlp", "Vision"]),
    ],
)
def test_refusals(golden, name, settings, lost, added, parts):
    config, state = load(golden / "foundation" / name)
    config = {key: value for key, value in (config | settings).items() if value is not None}
    state = {name: tensor for name, tensor in state.items() if not lost or lost not in name}
    with refused("FILE", *parts):
        build(read(config, state | ({added: torch.zeros(1)} if added else {})))
