import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.tiny_run import tiny_config, tiny_train
from tests.training.tiny_vivit import engine_of, take_steps, tiny_vivit
from vidtl.training.checkpoint import EMA, MODEL, checkpoint_step, list_checkpoints
from vidtl.training.optimizer import WeightAverage


def test_is_the_recurrence_with_its_warm_up():
    """Against the closed formula in float64: each weight's share is its (1 - d) times all later d."""
    torch.manual_seed(0)
    model, decay, history = nn.Linear(3, 2), 0.7, []
    average = WeightAverage(model, decay)
    start = model.weight.detach().double()
    for step in range(1, 30):
        nn.init.normal_(model.weight)
        history.append(model.weight.detach().double())
        average.update(step)
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, 30)]
    assert decays[0] == pytest.approx(2 / 11)
    assert decays[-1] == decay
    expected, rest = torch.zeros(2, 3, dtype=torch.float64), 1.0
    for weights, d in zip(reversed(history), reversed(decays), strict=True):
        expected += rest * (1 - d) * weights
        rest *= d
    assert torch.allclose(average.tensors["weight"].double(), expected + rest * start, atol=1e-6)


def test_the_model_has_the_average_inside_the_block_only():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(8, 3))  # moves the running mean
    nn.init.normal_(model[0].weight)
    nn.init.normal_(model[0].bias)
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert average.tensors.keys() == {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    with average.in_model():
        inside = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert torch.equal(inside["0.weight"], before["0.weight"])
    assert torch.equal(inside["1.running_mean"], before["1.running_mean"])
    assert torch.equal(inside["0.bias"], trained["0.bias"])
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("step", [3, 6])
def test_goes_on_bitwise_and_is_what_evaluations_see(tmp_path, accelerator, step):
    config = tiny_config(ema_decay=0.9)
    seen = []

    def evaluate(model):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"top1": 0.5}

    whole, model = tiny_train(tmp_path / "whole", config, accelerator, evaluate, model=tiny_vivit())
    averaged = load_file(whole.checkpoint / EMA / MODEL)
    trained = load_file(whole.checkpoint / MODEL)
    assert averaged.keys() == trained.keys()
    assert not torch.equal(averaged["head.weight"], trained["head.weight"])
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in seen[-1].items())
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())

    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for directory in list_checkpoints(tmp_path / "resumed" / "checkpoints"):
        if checkpoint_step(directory) > step:
            shutil.rmtree(directory)
    resumed, _ = tiny_train(tmp_path / "resumed", config, accelerator, evaluate, model=tiny_vivit())
    assert resumed.resumed_step == step
    for name in (MODEL, f"{EMA}/{MODEL}"):
        one, other = load_file(whole.checkpoint / name), load_file(resumed.checkpoint / name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_average_leaves_training_as_it_is(accelerator):
    plain, averaged = (engine_of(accelerator, tiny_vivit(), ema_decay=decay) for decay in (0.0, 0.99))
    for engine in (plain, averaged):
        take_steps(engine, 2)
        with engine.evaluated():
            pass
        take_steps(engine, 2, start=2)
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), averaged.model.parameters(), strict=True))
