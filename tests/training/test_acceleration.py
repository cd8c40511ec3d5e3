"""Blocks compiled for real (inductor and g++), and activations computed twice: the same numbers, the same names."""

import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.refusals import refused
from tests.training.tiny_vivit import engine_of, take_steps, tiny_vivit
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.training.checkpoint import MODEL, OPTIMIZER
from vidtl.training.model_setup import check_compiler, checkpoint_activations

RANDOM = {"dropout": 0.2, "attention_dropout": 0.1, "stochastic_depth": 0.5}


def kept_bytes(model, clips):
    """Activations that the backward pass would need, and the loss."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(clips).square().sum()
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights), loss


@pytest.mark.parametrize("form", ["joint", "factorised_encoder", "factorised_self_attention"])
def test_recomputed_gradients_are_the_kept_ones_with_dropout_and_stochastic_depth(form):
    clips = torch.randn(4, 2, 3, 2, 2)
    gradients, sizes = [], []
    for recompute in (False, True):
        model = tiny_vivit(form=form, depth=4, **RANDOM).train()
        if recompute:
            checkpoint_activations(model)
        torch.manual_seed(1)
        size, loss = kept_bytes(model, clips)
        loss.backward()
        sizes.append(size)
        gradients.append([loss, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert sizes[1] < 0.4 * sizes[0]


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(architecture="t2t_vit", width=8, depth=2, num_heads=2, dropout=0.1),
        ModelConfig(architecture="mini_vit", tokenizer="t2t_performer", width=8, depth=3, head_width=4, mlp_width=8),
    ],
    ids=["t2t_vit", "mini_vit"],
)
def test_token_modules_are_recomputed_too(config):
    images = torch.randn(2, 1, 3, 48, 48)
    gradients, sizes = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = build_model(config, ClipConfig(num_frames=1, frame_size=(48, 48)), 3).train()
        if recompute:
            checkpoint_activations(model)
        torch.manual_seed(1)
        size, loss = kept_bytes(model, images)
        loss.backward()
        sizes.append(size)
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert sizes[1] < 0.5 * sizes[0]


def test_batch_norms_would_count_twice_and_are_refused():
    config = ModelConfig(architecture="pytorchvideo", size="x3d_xs")
    with torch.device("meta"):
        model = build_model(config, ClipConfig(num_frames=4, frame_size=(32, 32)), 3)
    with refused("training.activation_checkpointing", "false"):
        checkpoint_activations(model)


def test_recomputing_trains_to_the_same_bits(accelerator):
    weights = []
    for recompute in (False, True):
        engine = engine_of(accelerator, tiny_vivit(**RANDOM), activation_checkpointing=recompute)
        take_steps(engine, 3)
        weights.append(engine.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    "what",
    [
        "blocks",
        pytest.param(
            "model",
            marks=pytest.mark.skipif("VIDTL_STRESS" not in os.environ, reason="slow; set VIDTL_STRESS to run it"),
        ),
    ],
)
def test_compiled_and_plain_runs_agree_and_go_on_from_each_other(accelerator, tmp_path, monkeypatch, what):
    one_block = {"form": "joint", "depth": 1, "token_learner": TokenLearnerConfig(num_tokens=0)}
    plain, compiled = (engine_of(accelerator, tiny_vivit(**one_block), compile=mode) for mode in ("none", what))
    for engine, name in ((plain, "plain"), (compiled, "compiled")):
        take_steps(engine, 2)
        (tmp_path / name).mkdir()
        engine.save(tmp_path / name, engine.snapshot())
    for name in (MODEL, OPTIMIZER):
        one, other = load_file(tmp_path / "plain" / name), load_file(tmp_path / "compiled" / name)
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in one)
    plain.load(tmp_path / "compiled", None)
    compiled.load(tmp_path / "plain", None)
    assert torch.equal(compiled.model.state_dict()["head.weight"], load_file(tmp_path / "plain" / MODEL)["head.weight"])
    for one, other in zip(take_steps(plain, 2, start=2), take_steps(compiled, 2, start=2), strict=True):
        assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-3)
    calls = []
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: calls.append(x) or nn.functional.gelu(x))
    with compiled.evaluated() as model:  # runs as written: the patched activation is called
        model(torch.randn(3, 2, 3, 2, 2))
    assert len(calls) == 1


def test_a_missing_compiler_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with refused("training.compile", "'blocks'", "'g++'", "'none'"):
        check_compiler("blocks", torch.device("cpu"))
    (tmp_path / "my-compiler").touch(mode=0o755)
    monkeypatch.setenv("CXX", "my-compiler")
    check_compiler("blocks", torch.device("cpu"))
