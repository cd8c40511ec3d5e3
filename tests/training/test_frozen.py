import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.training.tiny_vivit import engine_of, take_steps, tiny_vivit
from vidtl.config import ClipConfig, ModelConfig
from vidtl.models import build_model
from vidtl.training.model_setup import freeze_all_but


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        (("head",), ("head.",)),
        (("temporal_encoder", "head"), ("temporal_encoder.", "head.")),
        (("encoder.blocks.1.attn", "encoder.norm.bias"), ("encoder.blocks.1.attn.", "encoder.norm.bias")),
    ],
)
def test_frozen_parts_stay_bit_for_bit_and_the_others_move(accelerator, parts, trained):
    model = tiny_vivit(dropout=0.2, stochastic_depth=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = engine_of(accelerator, model, trainable=parts)
    take_steps(engine, 4)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith(trained), name
        assert (parameter in engine.optimizer.state) == name.startswith(trained), name


def test_frozen_layers_are_in_evaluation_mode_in_training(accelerator):
    model = tiny_vivit(dropout=0.5)
    engine = engine_of(accelerator, model, trainable=("encoder.blocks.1", "head"))
    with engine.evaluated():
        assert not model.head.training
    take_steps(engine, 1)
    assert not model.encoder.blocks[0].mlp.dropout.training
    assert not model.encoder.norm.training
    assert not model.temporal_encoder.training
    assert model.encoder.blocks[1].mlp.dropout.training
    assert model.head.training


def test_a_probe_keeps_nothing_of_the_layers_below():
    """The backbone's norms with running means do not move either, and no graph is recorded below the head."""
    config = ModelConfig(architecture="pytorchvideo", size="x3d_xs")
    model = build_model(config, ClipConfig(num_frames=4, frame_size=(32, 32), short_side=32), 3)
    frozen = freeze_all_but(model, ["head"])
    model.train()
    for module in frozen:
        module.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = model(torch.randn(2, 4, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    logits.sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "net.blocks.5.proj.weight",
        "net.blocks.5.proj.bias",
    }


def test_what_never_learns_is_not_made_to_learn():
    config = ModelConfig(architecture="t2t_vit", width=8, depth=1, num_heads=2)
    model = build_model(config, ClipConfig(num_frames=1, frame_size=(32, 32), short_side=32), 3)
    freeze_all_but(model, ["positions", "cls"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["cls"]
    with refused("training.trainable", "['positions']"):
        freeze_all_but(model, ["positions"])


def test_parts_of_the_tokens_to_token_module_can_be_trained_alone():
    """The Performer's random features stay as they are."""
    config = ModelConfig(architecture="mini_vit", tokenizer="t2t_performer", width=8)
    model = build_model(config, ClipConfig(num_frames=1, frame_size=(48, 48)), 3)
    every = [name for name, _ in model.named_parameters() if name.startswith("proj.")]
    freeze_all_but(model, ["proj"])
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == [name for name in every if name != "proj.layers.0.features"]


def test_a_name_that_does_not_exist_is_told_with_the_nearest():
    for wrong, nearest in (("heat", "head"), ("encoder.blocks.11", "encoder.blocks.1")):
        with refused("training.trainable", f"{wrong!r}", f"{nearest!r}"):
            freeze_all_but(tiny_vivit(), [wrong])


def test_no_parts_freeze_nothing():
    model = nn.Linear(2, 2)
    assert freeze_all_but(model, ()) == []
    assert all(p.requires_grad for p in model.parameters())
