"""Freezing, recomputed activations and compiled blocks (inductor and g++): the same numbers, the same names."""

import os
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from tests.models.test_complexity import kept_bytes
from tests.refusals import refused
from tests.training.tiny_run import engine_of, take_steps, tiny_vivit
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.training.checkpoint_directory import MODEL, OPTIMIZER
from vidtl.training.model_setup import checkpoint_activations, compile_model, completely_frozen, freeze_all_but

RANDOM = {"dropout": 0.2, "attention_dropout": 0.1, "stochastic_depth": 0.5}
X3D = ModelConfig(architecture="pytorchvideo", size="x3d_xs")
X3D_CLIP = ClipConfig(num_frames=4, frame_size=(32, 32))


def image_model(**settings):
    torch.manual_seed(0)
    return build_model(ModelConfig(width=8, **settings), ClipConfig(num_frames=1, frame_size=(48, 48)), 3)


T2T = {"architecture": "t2t_vit", "depth": 2, "num_heads": 2, "dropout": 0.1}
MINI_VIT = {"architecture": "mini_vit", "tokenizer": "t2t_performer", "depth": 3, "head_width": 4, "mlp_width": 8}


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(tiny_vivit, form="joint", depth=4, **RANDOM), (4, 2, 3, 2, 2)),
        (partial(tiny_vivit, form="factorised_self_attention", depth=4, **RANDOM), (4, 2, 3, 2, 2)),
        (partial(image_model, **T2T), (2, 1, 3, 48, 48)),
        (partial(image_model, **MINI_VIT), (2, 1, 3, 48, 48)),
    ],
)
def test_recomputed_gradients_are_bitwise_equal_and_keep_fewer_activations(make, shape):
    gradients, sizes = [], []
    for recompute in (False, True):
        model = make().train()
        if recompute:
            checkpoint_activations(model)
        torch.manual_seed(1)
        size, logits = kept_bytes(model, torch.randn(shape))
        loss = logits.square().sum()
        loss.backward()
        sizes.append(size)
        gradients.append([loss, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert sizes[1] < 0.5 * sizes[0]


STRESS = pytest.mark.skipif("VIDTL_STRESS" not in os.environ, reason="slow; set VIDTL_STRESS to run it")


@pytest.mark.parametrize("mode", ["blocks", pytest.param("model", marks=STRESS)])
def test_compiled_and_plain_runs_agree_and_resume_from_each_other(accelerator, tmp_path, monkeypatch, mode):
    one_block = {"form": "joint", "depth": 1, "token_learner": TokenLearnerConfig(num_tokens=0)}
    plain, compiled = (engine_of(accelerator, tiny_vivit(**one_block), compile=each) for each in ("none", mode))
    for engine, name in ((plain, "plain"), (compiled, "compiled")):
        take_steps(engine, 2)
        (tmp_path / name).mkdir()
        engine.save(tmp_path / name, engine.snapshot())
    for name in (MODEL, OPTIMIZER):
        assert_close(*(load_file(tmp_path / each / name) for each in ("plain", "compiled")), atol=1e-4, rtol=1e-5)
    plain.load(tmp_path / "compiled", None)
    compiled.load(tmp_path / "plain", None)
    assert torch.equal(compiled.model.state_dict()["head.weight"], load_file(tmp_path / "plain" / MODEL)["head.weight"])
    for one, other in zip(take_steps(plain, 2, start=2), take_steps(compiled, 2, start=2), strict=True):
        assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-3)
    calls = []
    monkeypatch.setattr(nn.GELU, "forward", lambda self, x: calls.append(x) or nn.functional.gelu(x))
    with compiled.evaluated() as model:  # runs without compilation: the patched activation is called
        model(torch.randn(3, 2, 3, 2, 2))
    assert len(calls) == 1


def test_a_missing_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with refused("training.compile", "'blocks'", "'g++'", "'none'"):
        compile_model(tiny_vivit(), "blocks", torch.device("cpu"))
    (tmp_path / "my-compiler").touch(mode=0o755)
    monkeypatch.setenv("CXX", "my-compiler")
    compile_model(tiny_vivit(), "blocks", torch.device("cpu"))


@pytest.mark.parametrize(
    "parts", [("head",), ("pool", "head"), ("temporal_encoder", "head"), ("encoder.blocks.1.attn", "encoder.norm.bias")]
)
def test_frozen_parts_stay_bitwise_equal_and_in_evaluation_mode(accelerator, parts):
    model = tiny_vivit(dropout=0.2, stochastic_depth=0.5, pooling="attention")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = engine_of(accelerator, model, trainable=parts)
    with engine.evaluated():
        assert not model.head.training
    take_steps(engine, 4)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith(parts), name
        assert (parameter in engine.optimizer.state) == name.startswith(parts), name
    assert not model.encoder.blocks[0].mlp.dropout.training
    assert model.forward_tokens(torch.zeros(1, 2, 3, 2, 2)).requires_grad == parts[0].startswith("encoder")
    assert model.head.training == model.head.weight.requires_grad
    assert model.temporal_encoder.training == ("temporal_encoder" in parts)


def test_a_linear_probe_changes_no_running_statistics_and_stores_no_graph_below_the_head():
    model = build_model(X3D, X3D_CLIP, 3)
    with refused("training.activation_checkpointing", "false"):
        checkpoint_activations(model)  # batch norms would see each clip twice
    freeze_all_but(model, ["head"])
    model.train()
    for module in completely_frozen(model):
        module.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(torch.randn(2, 4, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    logits.sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"net.blocks.5.proj.weight", "net.blocks.5.proj.bias"}


def test_constant_parameters_stay_frozen_and_unknown_parts_are_refused():
    def trained(model, *parts):
        freeze_all_but(model, parts)
        return [name for name, p in model.named_parameters() if p.requires_grad]

    assert trained(image_model(**T2T), "positions", "cls") == ["cls"]
    with refused("training.trainable", "['positions']"):
        trained(image_model(**T2T), "positions")
    every = [name for name, _ in image_model(**MINI_VIT).named_parameters() if name.startswith("proj.")]
    every.remove("proj.layers.0.features")  # random features of the Performer
    assert trained(image_model(**MINI_VIT), "proj") == every
    for wrong, nearest in (("heat", "head"), ("encoder.blocks.11", "encoder.blocks.1")):
        with refused("training.trainable", repr(wrong), repr(nearest)):
            freeze_all_but(tiny_vivit(), [wrong])
