"""Adapters: what trains, what is saved, and resuming."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.refusals import refused
from tests.training.runs import are_equal, checkpoint_of, cut_back
from tests.training.tiny_run import engine_of, take_steps, tiny_config, tiny_task, tiny_train, tiny_vivit
from vidtl.training import lora
from vidtl.training.checkpoint_directory import MODEL
from vidtl.training.step import Engine

pytest.importorskip("peft")
FRESH, NAMED = "encoder.token_learners", "temporal_encoder.blocks.0"
LAYERS = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize("options", [{"accumulation_steps": 2}, {"activation_checkpointing": True}])
def test_adapters_and_fresh_or_named_parts_train_and_are_saved_as_a_plain_model(accelerator, tmp_path, options):
    model = tiny_vivit(stochastic_depth=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = tiny_config(lora=2, trainable=(NAMED,), **options)
    engine = Engine(model, config, accelerator, replace(tiny_task(config), fresh=(FRESH,)))
    take_steps(engine, 4)
    engine.save(tmp_path, engine.snapshot())

    after, trained = load_file(tmp_path / MODEL), ("head", FRESH, NAMED)
    expected = {name for name in before if name.startswith(trained)}
    expected |= {f"encoder.blocks.{block}.{layer}.weight" for block in (0, 1) for layer in LAYERS}
    assert after.keys() == before.keys()
    assert {name for name in before if not torch.equal(before[name], after[name])} == expected
    for name, tensor in model.state_dict().items():
        plain = name.replace(".base_layer", "")
        assert plain not in before or torch.equal(tensor, before[plain]) != plain.startswith(trained), name

    saved, clips = tiny_vivit(), torch.randn(3, 2, 3, 2, 2)
    saved.load_state_dict(after)
    with engine.evaluated():
        assert_close(saved.eval()(clips), model(clips), atol=1e-5, rtol=1e-5)


def test_a_resumed_run_ends_with_the_same_bits_whatever_the_first_weights_are_then(accelerator, tmp_path):
    config = tiny_config(lora=2, ema_decay=0.9, accumulation_steps=2)
    tiny_train(tmp_path / "whole", config, accelerator, model=tiny_vivit(dropout=0.1))
    cut_back(tmp_path / "whole", tmp_path / "resumed", 4)
    other = tiny_vivit(dropout=0.1)
    torch.nn.init.normal_(other.encoder.blocks[0].attn.q.weight)
    assert tiny_train(tmp_path / "resumed", config, accelerator, model=other)[0].resumed_step == 4
    assert are_equal(*(checkpoint_of(tmp_path / run, 12) for run in ("whole", "resumed")))


def test_adapters_without_peft_or_frozen_layers_are_refused(accelerator, monkeypatch):
    with refused("training.lora", "3", "frozen"):
        engine_of(accelerator, tiny_vivit(), lora=3, trainable=("encoder", "temporal_encoder"))
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with refused("training.lora", "3", ".[lora]"):
        engine_of(accelerator, tiny_vivit(), lora=3)
