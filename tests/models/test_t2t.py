"""T2T-ViT: outputs and counts of the authors, any image size, released files."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.models.published import NO_LEARNER, assert_close
from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model, create_model, load_model_directory, save_model_directory
from vidtl.models.complexity import count_parameters
from vidtl.models.embedding import Grid, sincos_1d
from vidtl.models.t2t_vit import TokensToToken
from vidtl.models.vivit import ViViT
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published

KINDS = ("performer", "transformer")
SMALL = ModelConfig(architecture="t2t_vit", width=48, depth=3, num_heads=3, mlp_width=144, token_width=16)
SIZES: dict[str, Any] = {"width": 24, "depth": 2, "num_heads": 3, "temporal_depth": 1}


def golden_config(folder):
    config = json.loads((folder / "config.json").read_text())
    names = {"width": "embed_dim", "depth": "depth", "num_heads": "num_heads", "token_width": "token_dim"}
    sizes: dict[str, Any] = {name: config[key] for name, key in names.items()}
    sizes |= {"mlp_width": int(config["mlp_ratio"] * config["embed_dim"]), "tokenizer": f"t2t_{config['tokens_type']}"}
    return ModelConfig(architecture="t2t_vit", **sizes)


def golden_clip(folder):
    return image_clip(json.loads((folder / "config.json").read_text())["img_size"])


def image_clip(side=64, other=None):
    size = (side, other or side)
    return ClipConfig(num_frames=1, frame_size=size, short_side=max(size))


def made(config=SMALL, clip=None, num_classes=7):
    return build_model(config, clip or image_clip(), num_classes).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_logits_are_the_authors(golden, kind):
    folder = golden / f"t2t_vit_{kind}"
    expected = np.load(folder / "io.npz")
    model = made(golden_config(folder), golden_clip(folder), expected["logits"].shape[1])
    report = load_pretrained(model, folder / "model.safetensors")
    assert report.missing == report.unexpected == report.resized == ()
    input_BTCHW = torch.from_numpy(expected["images"]).unsqueeze(1)
    with torch.no_grad():
        outputs = {"tokens": model.tokens(input_BTCHW).squeeze(1), "logits": model(input_BTCHW)}
    for name, ours in outputs.items():
        assert_close(ours, torch.from_numpy(expected[name]), name)
    found = read_published(folder / "model.safetensors").model
    assert ModelConfig(**found, num_heads=model.model_config.num_heads) == golden_config(folder)


def test_frame_sizes_need_not_be_square_or_multiples_of_16():
    with torch.device("meta"):  # a larger image only lengthens the position table
        assert count_parameters(create_model("t2t_vit_14", 1000, frame_size=(384, 384))) == 21_691_470
    model = made(clip=image_clip(50, 90))
    assert torch.equal(model.positions.weight, sincos_1d(1 + 18, 48))
    assert model.positions.grid == Grid(1, 3, 6)
    assert model(torch.randn(2, 1, 3, 50, 90)).shape == (2, 7)


@pytest.mark.parametrize("tokenizer", ["t2t_performer", "t2t_transformer"])
def test_a_vivit_sees_t2t_tokens_of_every_frame(tokenizer):
    torch.manual_seed(0)
    stage = TokenLearnerConfig(num_tokens=2, after_block=1)
    config = ModelConfig(**SIZES, tokenizer=tokenizer, tubelet=(1, 16, 16), token_learner=stage)
    model = made(config, ClipConfig(num_frames=3, frame_size=(32, 48)), 5).train()
    input_BTCHW = torch.randn(2, 3, 3, 32, 48)
    tokens_BtND = model.tokenize(input_BTCHW)
    assert tokens_BtND.shape == (2, 3, 6, 24)
    torch.testing.assert_close(tokens_BtND[:, 1:2], model.embed(input_BTCHW[:, 1:2]))
    torch.nn.init.normal_(model.head.weight)
    model(input_BTCHW).square().sum().backward()
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    assert all(name.endswith("features") for name in frozen)
    assert model.token_maps(input_BTCHW).shape == (2, 3, 2, 2, 3)


def test_t2t_tokens_of_evenly_spaced_frames():
    frames = {"tokenizer": "t2t_performer", "tubelet": (4, 16, 16), "tubelet_sampling": "uniform"}
    config = ModelConfig(**SIZES, **frames, token_learner=NO_LEARNER)
    clip = ClipConfig(num_frames=8, frame_size=(32, 32))
    model = made(config, clip)
    input_BTCHW = torch.randn(1, 8, 3, 32, 32)
    torch.testing.assert_close(model.tokenize(input_BTCHW), model.embed(input_BTCHW[:, [3, 5]]))  # 8 / 3, 16 / 3
    for wrong in (replace(config, tubelet_sampling="tubelet"), replace(config, tubelet=(4, 8, 16))):
        with refused("model.tubelet", list(wrong.tubelet or ()), "[1, 16, 16]", "t2t_performer"):
            made(wrong, clip)


def test_an_image_vit_has_no_weights_for_t2t_tokens(tmp_path):
    path = tmp_path / "vit"
    image = create_model("vivit_ti16x1_joint", width=64, depth=1, num_heads=1, num_frames=1, frame_size=(32, 32))
    save_model_directory(image, path)
    clip = {"num_frames": 2, "frame_size": (32, 32)}
    model: Any = ViViT(**SIZES, **clip, tokenizer="t2t_performer", tubelet=(1, 16, 16), num_classes=5)
    with refused("model.tokenizer", "'t2t_performer'", "'tubelet'"):
        load_pretrained(model, path)


def test_the_performer_stays_in_float32_and_finite():
    layer = made().tokens.layers[0]
    tokens = torch.randn(1, 64, 147)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(tokens)
    assert out.dtype == torch.float32
    assert torch.equal(out, layer(tokens))
    with torch.no_grad():
        layer.kqv.weight.normal_(std=10.0)  # features underflow
        assert layer(tokens).isfinite().all()


def test_weights_of_another_image_size_bring_their_positions_resized(golden, tmp_path):
    def bicubic(rows, side):
        old = round(len(rows) ** 0.5)
        image = rows.T.reshape(1, -1, old, old)
        return torch.nn.functional.interpolate(image, (side, side), mode="bicubic").flatten(2)[0].T

    folder = golden / "t2t_vit_performer"
    state = load_file(folder / "model.safetensors")
    source, clip = state["pos_embed"][0], golden_clip(folder)
    model = made(golden_config(folder), image_clip(2 * clip.frame_size[0]), state["head.bias"].shape[0])
    side = model.positions.grid.h
    (resized,) = load_pretrained(model, folder / "model.safetensors").resized
    assert f"to 1x{side}x{side}" in resized
    torch.testing.assert_close(model.positions.weight[0], source[0])
    larger = bicubic(source[1:], side)
    torch.testing.assert_close(model.positions.weight[1:], larger)
    save_model_directory(model, tmp_path)
    smaller = load_model_directory(tmp_path, clip)
    torch.testing.assert_close(smaller.positions.weight[1:], bicubic(larger, round(len(source[1:]) ** 0.5)))


def test_heads_and_clips_that_do_not_fit_are_refused():
    with refused("model.width", 48, "model.num_heads", 5):
        made(replace(SMALL, num_heads=5))
    with refused("clip.num_frames", 2, "t2t_vit"):
        made(clip=ClipConfig(num_frames=2))
    with refused("clip.frame_size", [2, 2]):
        TokensToToken("t2t_performer", (2, 2), 24)
