import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.runs import are_equal, cut_back
from tests.training.tiny_run import tiny_config, tiny_train
from tests.training.tiny_vivit import tiny_vivit
from vidtl.training.checkpoint import EMA, MODEL
from vidtl.training.optimizer import WeightAverage


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_average_is_the_closed_formula_of_its_recurrence():
    torch.manual_seed(0)
    model, decay, history = nn.Linear(3, 2), 0.7, []
    average = WeightAverage(model, decay)
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


def test_the_average_replaces_weights_inside_the_block_only():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[0].bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    before = copied(model)
    model(torch.randn(8, 3))  # moves the running mean
    nn.init.normal_(model[0].weight)
    nn.init.normal_(model[0].bias)
    trained = copied(model)
    assert average.tensors.keys() == {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    with average.in_model():
        inside = copied(model)
    assert torch.equal(inside["0.weight"], before["0.weight"])
    assert torch.equal(inside["1.running_mean"], before["1.running_mean"])
    assert torch.equal(inside["0.bias"], trained["0.bias"])
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


def test_the_average_resumes_bitwise_and_is_evaluated(tmp_path, accelerator):
    config, seen = tiny_config(ema_decay=0.9), []

    def evaluate(model):
        seen.append(copied(model))
        return {"top1": 0.5}

    whole, model = tiny_train(tmp_path / "whole", config, accelerator, evaluate, model=tiny_vivit())
    averaged, trained = (load_file(whole.checkpoint / name) for name in (f"{EMA}/{MODEL}", MODEL))
    assert averaged.keys() == trained.keys()
    assert not torch.equal(averaged["head.weight"], trained["head.weight"])
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in seen[-1].items())
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())
    copy = cut_back(tmp_path / "whole", tmp_path / "resumed", 3)
    resumed, _ = tiny_train(copy, config, accelerator, evaluate, model=tiny_vivit())
    assert resumed.resumed_step == 3
    assert are_equal(resumed.checkpoint, whole.checkpoint)
