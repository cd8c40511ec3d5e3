import pytest
import torch
from torch import nn

from vidtl.config import ClipConfig, ModelConfig, OptimizerConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.training.model_setup import freeze_all_but
from vidtl.training.optimizer import (
    OPTIMIZERS,
    build_optimizer,
    layer_numbers,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_groups,
    set_learning_rate,
)

CPU = torch.device("cpu")
NONE = TokenLearnerConfig(num_tokens=0)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 4, 3))
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.frozen = nn.Parameter(torch.randn(3, 3), requires_grad=False)

    def no_weight_decay(self) -> set[str]:
        return {"positions"}


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (model.norm(model.linear(model.positions)) ** 2 * torch.arange(3)).sum().backward()
        optimizer.step()


def test_only_matrices_decay():
    model = Model()
    decay, no_decay = parameter_groups(model, OptimizerConfig(weight_decay=0.05))
    assert decay == {"params": [model.linear.weight], "weight_decay": 0.05, "lr_scale": 1.0, "muon": False}
    assert no_decay["weight_decay"] == 0
    expected = {model.positions, model.linear.bias, model.norm.weight, model.norm.bias}
    assert set(no_decay["params"]) == expected  # the frozen one is in neither


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_goes_on_bitwise_from_its_tensors(name):
    torch.manual_seed(0)
    config = OptimizerConfig(name=name, learning_rate=0.1)
    model = Model()
    optimizer = build_optimizer(model, config, CPU)
    train(model, optimizer, 3)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = {key: value.clone() for key, value in optimizer_tensors(optimizer, model).items()}
    assert all(key.rpartition(".")[0] in weights for key in tensors)

    second = Model()
    second.load_state_dict(weights)
    restored = build_optimizer(second, config, CPU)
    load_optimizer_tensors(restored, second, tensors)
    train(model, optimizer, 4)
    train(second, restored, 4)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in model.state_dict().items())

    fresh = Model()
    fresh.load_state_dict(weights)
    train(fresh, build_optimizer(fresh, config, CPU), 4)
    assert not torch.equal(fresh.linear.weight, second.linear.weight)  # the state matters


def test_sgd_has_momentum_and_no_nesterov_step():
    weight = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(weight, OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.5), CPU)
    set_learning_rate(optimizer, 0.1)
    start = weight.weight.item()
    for _ in range(2):
        weight.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert weight.weight.item() == pytest.approx(start - 0.1 * 1 - 0.1 * 1.5)


def image_clip(side=48):
    return ClipConfig(num_frames=1, frame_size=(side, side))


VIDEO_CLIP = ClipConfig(num_frames=4, frame_size=(32, 32))
SMALL = {"width": 12, "depth": 4, "num_heads": 2, "tubelet": (2, 16, 16)}
MODELS = {
    "joint": (
        ModelConfig(form="joint", pooling="cls", token_learner=NONE, **SMALL),
        VIDEO_CLIP,
        {"embed.proj.weight": 0, "encoder.cls": 0, "encoder.positions.weight": 0, "encoder.blocks.0.norm1.weight": 1,
         "encoder.blocks.3.mlp.fc2.bias": 4, "encoder.norm.weight": 5, "head.weight": 5},
    ),
    "factorised encoder": (
        ModelConfig(temporal_depth=2, token_learner=TokenLearnerConfig(num_tokens=2, after_block=2), **SMALL),
        VIDEO_CLIP,
        {"embed.proj.bias": 0, "encoder.positions.weight": 0, "encoder.blocks.1.attn.q.weight": 2,
         "encoder.token_learners.0.norm.weight": 3, "encoder.blocks.2.attn.q.weight": 3, "encoder.norm.bias": 4,
         "temporal_encoder.positions.weight": 5, "temporal_encoder.blocks.0.norm1.bias": 5,
         "temporal_encoder.blocks.1.norm1.bias": 6, "temporal_encoder.norm.weight": 7, "head.bias": 7},
    ),
    "TokenLearner after the last block": (
        ModelConfig(temporal_depth=0, token_learner=TokenLearnerConfig(num_tokens=2, after_block=4), **SMALL),
        VIDEO_CLIP,
        {"encoder.blocks.3.norm1.bias": 4, "encoder.token_learners.0.norm.weight": 4, "encoder.norm.bias": 5},
    ),
    "fuser": (
        ModelConfig(
                form="factorised_self_attention",
                token_learner=TokenLearnerConfig(num_tokens=2, after_block=2, fuser=True),
                **SMALL,
            ),
        VIDEO_CLIP,
        {"encoder.blocks.0.norm_time.weight": 1, "encoder.token_learners.0.norm.weight": 3,
         "encoder.token_fusers.1.norm1.weight": 4, "head.bias": 5},
    ),
    "T2T-ViT": (
        ModelConfig(architecture="t2t_vit", width=8, depth=2, num_heads=2),
        image_clip(),
        {"tokens.proj.weight": 0, "tokens.layers.1.norm1.weight": 0, "cls": 0, "blocks.0.norm1.weight": 1,
         "blocks.1.norm1.weight": 2, "norm.weight": 3, "head.weight": 3},
    ),
    "mini-ViT": (
        ModelConfig(architecture="mini_vit"),
        image_clip(),
        {"proj.weight": 0, "positions.weight": 0, "blocks.2.norm1.weight": 3, "token_learner.norm.weight": 4,
         "blocks.3.norm1.weight": 4, "norm.bias": 5, "head.bias": 5},
    ),
    "mini-ViT of T2T tokens": (
        ModelConfig(architecture="mini_vit", tokenizer="t2t_performer"),
        image_clip(),
        {"proj.layers.0.kqv.weight": 0, "proj.layers.0.features": 0, "proj.proj.bias": 0, "positions.weight": 0,
         "blocks.0.norm1.weight": 1, "token_learner.norm.weight": 4, "head.bias": 5},
    ),
    "X3D": (
        ModelConfig(architecture="pytorchvideo", size="x3d_xs"),
        ClipConfig(num_frames=4, frame_size=(64, 64)),
        {"net.blocks.0.conv.conv_t.weight": 0, "net.blocks.5.proj.weight": 5},
    ),
    "MViT": (
        ModelConfig(architecture="pytorchvideo", size="mvit_b_16x4"),
        ClipConfig(num_frames=16, frame_size=(64, 64)),
        {"net.patch_embed.patch_model.weight": 0, "net.cls_positional_encoding.cls_token": 0,
         "net.blocks.15.norm1.weight": 16, "net.head.proj.weight": 17},
    ),
}  # fmt: skip


def on_meta(name):
    config, clip, expected = MODELS[name]
    with torch.device("meta"):
        return build_model(config, clip, 3), expected


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_its_layer(name):
    model, expected = on_meta(name)
    numbers = layer_numbers(model)
    assert numbers.keys() == dict(model.named_parameters()).keys()
    assert {name: numbers[name] for name in expected} == expected
    assert set(numbers.values()) == set(range(max(expected.values()) + 1)) - empty_layers(model)


def empty_layers(model):
    """SlowFast's pooling and the like: layers without parameters."""
    names = [name for name, _ in model.named_parameters()]
    return {
        number
        for number, parts in enumerate(model.layers())
        if not any(name.startswith(part) for part in parts for name in names)
    }


@pytest.mark.parametrize("name", MODELS)
def test_layer_decay_is_a_power_of_the_layers_above(name):
    model, _ = on_meta(name)
    numbers, config = layer_numbers(model), OptimizerConfig(layer_decay=0.7, weight_decay=0.1)
    groups = parameter_groups(model, config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    last, exempt = max(numbers.values()), model.no_weight_decay()
    seen = []
    for group in groups:
        (layer,) = {numbers[names[parameter]] for parameter in group["params"]}
        assert group["lr_scale"] == pytest.approx(0.7 ** (last - layer))
        for parameter in group["params"]:
            decays = parameter.ndim > 1 and names[parameter] not in exempt
            assert group["weight_decay"] == (0.1 if decays else 0.0)
            seen.append(names[parameter])
    assert sorted(seen) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert len(groups) <= 2 * (last + 1)


def test_layers_take_their_share_of_the_learning_rate():
    model, _ = on_meta("joint")
    optimizer = OPTIMIZERS["sgd"](parameter_groups(model, OptimizerConfig(layer_decay=0.5)), OptimizerConfig(), False)
    set_learning_rate(optimizer, 0.8)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.head.weight)] == pytest.approx(0.8)
    assert rates[id(model.encoder.blocks[3].norm1.weight)] == pytest.approx(0.4)
    assert rates[id(model.embed.proj.bias)] == pytest.approx(0.8 / 32)


def test_muon_takes_the_matrices_between_first_and_last_layer():
    model, _ = on_meta("factorised encoder")
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, OptimizerConfig(name="muon"))
    taken = {names[parameter] for group in groups if group["muon"] for parameter in group["params"]}
    assert taken == {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and name not in ("embed.proj.weight", "head.weight") and "positions" not in name
    }
    assert "encoder.token_learners.0.score.fc1.weight" in taken


def test_muon_with_adamw_is_both_side_by_side_and_goes_on_bitwise():
    config = OptimizerConfig(name="muon", learning_rate=0.02, layer_decay=0.9)
    clip = ClipConfig(num_frames=4, frame_size=(32, 32))
    torch.manual_seed(0)
    model = build_model(MODELS["factorised encoder"][0], clip, 3)
    clips = torch.randn(2, 4, 3, 32, 32)

    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(clips), torch.tensor([0, 1])).backward()
            set_learning_rate(optimizer, 0.02)
            optimizer.step()

    optimizer = build_optimizer(model, config, CPU)
    steps(model, optimizer, 3)
    states = {name.rpartition(".")[2] for name in optimizer_tensors(optimizer, model)}
    assert states == {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"}
    tensors = {key: value.clone() for key, value in optimizer_tensors(optimizer, model).items()}
    twin = build_model(MODELS["factorised encoder"][0], clip, 3)
    twin.load_state_dict(model.state_dict())
    restored = build_optimizer(twin, config, CPU)
    load_optimizer_tensors(restored, twin, tensors)
    steps(model, optimizer, 2)
    steps(twin, restored, 2)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())


def test_muon_moves_a_matrix_equally_in_all_directions():
    """Its update is nearly orthogonal, at 0.2 x sqrt(larger side) times the learning rate (Liu et al., 2025)."""
    torch.manual_seed(0)
    config = OptimizerConfig(name="muon", weight_decay=0.0)
    model = build_model(MODELS["factorised encoder"][0], VIDEO_CLIP, 3)
    nn.init.normal_(model.head.weight)
    weight = model.encoder.blocks[1].attn.v.weight
    before = weight.detach().clone()
    optimizer = build_optimizer(model, config, CPU)
    nn.functional.cross_entropy(model(torch.randn(8, 4, 3, 32, 32)), torch.arange(8) % 3).backward()
    set_learning_rate(optimizer, 0.1)
    optimizer.step()
    singular = torch.linalg.svdvals(weight.detach() - before) / (0.1 * 0.2 * 12**0.5)
    assert 0.6 < singular.max() < 1.3
    assert singular.median() > 0.6


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_linear_probe_has_an_optimizer(name):
    model = build_model(MODELS["joint"][0], VIDEO_CLIP, 3)
    freeze_all_but(model, ["head"])
    optimizer = build_optimizer(model, OptimizerConfig(name=name), CPU)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(model.head.weight),
        id(model.head.bias),
    }


def test_refuses_tensors_of_another_model():
    model = Model()
    optimizer = build_optimizer(model, OptimizerConfig(), CPU)
    with pytest.raises(KeyError, match="elsewhere"):
        load_optimizer_tensors(optimizer, model, {"elsewhere.exp_avg": torch.zeros(1)})
