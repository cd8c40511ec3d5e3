import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.runs import are_equal, cut_back
from tests.training.tiny_run import norm_model, tiny_config, tiny_train
from vidtl.config import ClipConfig, ModelConfig, OptimizerConfig, TokenLearnerConfig
from vidtl.models import build_model
from vidtl.training import optimizer as module
from vidtl.training.checkpoint_directory import EMA, MODEL
from vidtl.training.model_setup import freeze_all_but
from vidtl.training.optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors, set_learning_rate

CPU = torch.device("cpu")
ADAM = {"exp_avg", "exp_avg_sq", "step"}
NONE = TokenLearnerConfig(num_tokens=0)


@pytest.mark.parametrize(
    ("name", "states"), [("adamw", ADAM), ("sgd", {"momentum_buffer"}), ("muon", {*ADAM, "momentum_buffer"})]
)
def test_an_optimizer_resumes_bitwise_from_its_tensors(name, states):
    config = OptimizerConfig(name=name, learning_rate=0.02, layer_decay=0.9)
    torch.manual_seed(0)
    clips = torch.randn(2, 4, 3, 32, 32)

    def start(weights=None):
        model = build_model(MODELS["factorised encoder"][0], VIDEO_CLIP, 3)
        model.load_state_dict(weights or model.state_dict())
        return model, build_optimizer(model, config, CPU)

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(clips), torch.tensor([0, 1])).backward()
            set_learning_rate(optimizer, 0.02)
            optimizer.step()

    model, optimizer = start()
    train(model, optimizer, 3)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = {key: value.clone() for key, value in optimizer_tensors(optimizer, model).items()}
    assert {key.rpartition(".")[2] for key in tensors} == states
    assert all(key.rpartition(".")[0] in weights for key in tensors)
    second, restored = start(weights)
    load_optimizer_tensors(restored, second, tensors)
    fresh, unrestored = start(weights)
    for each in ((model, optimizer), (second, restored), (fresh, unrestored)):
        train(*each, 2)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in model.state_dict().items())
    assert not torch.equal(fresh.head.weight, second.head.weight)  # the state matters
    with pytest.raises(KeyError, match="elsewhere"):
        load_optimizer_tensors(restored, second, {"elsewhere.exp_avg": torch.zeros(1)})


def test_sgd_has_momentum_no_nesterov_step_and_the_rate_of_the_layer():
    weight = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(weight, OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.5), CPU)
    optimizer.param_groups[0]["lr_scale"] = 0.5
    set_learning_rate(optimizer, 0.2)
    start = weight.weight.item()
    for _ in range(2):
        weight.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert weight.weight.item() == pytest.approx(start - 0.1 * 1 - 0.1 * 1.5)


VIDEO_CLIP = ClipConfig(num_frames=4, frame_size=(32, 32))
IMAGE_CLIP = ClipConfig(num_frames=1, frame_size=(48, 48))
CLIPS = {size: ClipConfig(num_frames=n, frame_size=(64, 64)) for size, n in (("x3d_xs", 4), ("mvit_b_16x4", 16))}
SMALL = {"width": 12, "depth": 4, "num_heads": 2, "tubelet": (2, 16, 16)}
X3D = ModelConfig(architecture="pytorchvideo", size="x3d_xs")
MODELS = {
    "joint": (
        ModelConfig(form="joint", pooling="cls", token_learner=NONE, **SMALL),
        {"embed.proj.weight": 0, "encoder.cls": 0, "encoder.positions.weight": 0, "encoder.blocks.0.norm1.weight": 1,
         "encoder.blocks.3.mlp.fc2.bias": 4, "encoder.norm.weight": 5, "head.weight": 5},
    ),
    "factorised encoder": (
        ModelConfig(temporal_depth=2, token_learner=TokenLearnerConfig(num_tokens=2, after_block=2), **SMALL),
        {"embed.proj.bias": 0, "encoder.blocks.1.attn.q.weight": 2, "encoder.token_learners.0.norm.weight": 3,
         "encoder.blocks.2.attn.q.weight": 3, "encoder.norm.bias": 4, "temporal_encoder.positions.weight": 5,
         "temporal_encoder.blocks.0.norm1.bias": 5, "temporal_encoder.norm.weight": 7, "head.bias": 7},
    ),
    "TokenLearner after the last block": (
        ModelConfig(temporal_depth=0, token_learner=TokenLearnerConfig(num_tokens=2, after_block=4), **SMALL),
        {"encoder.blocks.3.norm1.bias": 4, "encoder.token_learners.0.norm.weight": 4, "encoder.norm.bias": 5},
    ),
    "fuser": (
        ModelConfig(form="factorised_self_attention",
                    token_learner=TokenLearnerConfig(num_tokens=2, after_block=2, fuser=True), **SMALL),
        {"encoder.blocks.0.norm_time.weight": 1, "encoder.token_learners.0.norm.weight": 3,
         "encoder.token_fusers.1.norm1.weight": 4, "head.bias": 5},
    ),
    "T2T-ViT": (
        ModelConfig(architecture="t2t_vit", width=8, depth=2, num_heads=2),
        {"tokens.proj.weight": 0, "tokens.layers.1.norm1.weight": 0, "blocks.1.norm1.weight": 2, "head.weight": 3},
    ),
    "mini-ViT": (
        ModelConfig(architecture="mini_vit", tokenizer="t2t_performer"),
        {"proj.layers.0.kqv.weight": 0, "proj.layers.0.features": 0, "proj.proj.bias": 0, "positions.weight": 0,
         "blocks.2.norm1.weight": 3, "token_learner.norm.weight": 4, "blocks.3.norm1.weight": 4, "head.bias": 5},
    ),
    "X3D": (X3D, {"net.blocks.0.conv.conv_t.weight": 0, "net.blocks.5.proj.weight": 5}),
    "MViT": (
        ModelConfig(architecture="pytorchvideo", size="mvit_b_16x4"),
        {"net.patch_embed.patch_model.weight": 0, "net.cls_positional_encoding.cls_token": 0,
         "net.blocks.15.norm1.weight": 16, "net.head.proj.weight": 17},
    ),
}  # fmt: skip


def on_meta(name):
    config, expected = MODELS[name]
    clip = VIDEO_CLIP if config.architecture == "vivit" else CLIPS.get(config.size, IMAGE_CLIP)
    with torch.device("meta"):
        return build_model(config, clip, 3), expected


def test_sharded_weights_have_no_fused_sgd():
    """torch has no sharding strategy for its kernel, and FSDP2 would end at the first step."""
    configs = (OptimizerConfig(name=name) for name in ("sgd", "adamw"))
    assert [build_optimizer(nn.Linear(2, 2), each, CPU, sharded=True).defaults["fused"] for each in configs] == [0, 1]


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_its_layer_learning_rate_and_weight_decay(name):
    model, expected = on_meta(name)
    numbers = module.layer_numbers(model)
    assert numbers.keys() == dict(model.named_parameters()).keys()
    assert {name: numbers[name] for name in expected} == expected
    last = max(numbers.values())
    assert set(numbers.values()) == set(range(last + 1))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for layer_decay in (0.7, 1.0):
        groups = module.parameter_groups(model, OptimizerConfig(layer_decay=layer_decay, weight_decay=0.1))
        assert len(groups) <= (2 * (last + 1) if layer_decay < 1 else 2)
        optimized = [(names[parameter], parameter, group) for group in groups for parameter in group["params"]]
        for name, parameter, group in optimized:
            assert group["lr_scale"] == pytest.approx(layer_decay ** (last - numbers[name]))
            decays = parameter.ndim > 1 and name not in model.no_weight_decay()
            assert group["weight_decay"] == (0.1 if decays else 0.0)
        assert sorted(n for n, *_ in optimized) == sorted(n for n, p in model.named_parameters() if p.requires_grad)


def test_muon_optimizes_the_matrices_between_first_and_last_layer():
    model, _ = on_meta("factorised encoder")
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = module.parameter_groups(model, OptimizerConfig(name="muon"))
    taken = {names[parameter] for group in groups if group["muon"] for parameter in group["params"]}
    matrices = {name for parameter, name in names.items() if parameter.ndim == 2 and "positions" not in name}
    assert taken == matrices - {"embed.proj.weight", "head.weight"}
    assert "encoder.token_learners.0.score.fc1.weight" in taken


def test_an_update_of_muon_is_nearly_orthogonal():
    """Its singular values are near 0.2 x sqrt(larger side) times the learning rate (Liu et al., 2025)."""
    torch.manual_seed(0)
    model = build_model(MODELS["factorised encoder"][0], VIDEO_CLIP, 3)
    nn.init.normal_(model.head.weight)
    weight = model.encoder.blocks[1].attn.v.weight
    before = weight.detach().clone()
    optimizer = build_optimizer(model, OptimizerConfig(name="muon", weight_decay=0.0), CPU)
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
    optimized = [p for group in optimizer.param_groups for p in group["params"]]
    assert set(optimized) == {model.head.weight, model.head.bias}


def test_the_average_is_the_closed_formula_of_its_recurrence():
    torch.manual_seed(0)
    model, decay, history = nn.Linear(3, 2), 0.7, []
    average = module.WeightAverage(model, decay)
    start = model.weight.detach().double()
    for step in range(1, 30):
        nn.init.normal_(model.weight)
        history.append(model.weight.detach().double())
        average.update(step)
    expected, rest = torch.zeros(2, 3, dtype=torch.float64), 1.0
    for n in range(29, 0, -1):  # the share of a weight is its (1 - d) times all later d
        d = min(decay, (1 + n) / (10 + n))
        expected += rest * (1 - d) * history[n - 1]
        rest *= d
    assert torch.allclose(average.tensors["weight"].double(), expected + rest * start, atol=1e-6)


def test_the_average_resumes_bitwise_and_is_in_the_model_in_evaluations_only(tmp_path, accelerator):
    config, seen = tiny_config(ema_decay=0.9), []

    def evaluate(model):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"top1": 0.5}

    whole, model = tiny_train(tmp_path / "whole", config, accelerator, evaluate, model=norm_model())
    averaged, trained = (load_file(whole.checkpoint / name) for name in (f"{EMA}/{MODEL}", MODEL))
    assert averaged.keys() == trained.keys()
    assert not any(torch.equal(averaged[key], trained[key]) for key in ("0.head.weight", "1.weight", "1.running_mean"))
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in seen[-1].items())
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())
    copy = cut_back(tmp_path / "whole", tmp_path / "resumed", 3)
    resumed, _ = tiny_train(copy, config, accelerator, evaluate, model=norm_model())
    assert resumed.resumed_step == 3
    assert are_equal(resumed.checkpoint, whole.checkpoint)
