import pytest
import torch
from torch import nn

from vidtl.config import OptimizerConfig
from vidtl.training.optimizer import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_groups,
    set_learning_rate,
)

CPU = torch.device("cpu")


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
    decay, no_decay = parameter_groups(model, 0.05)
    assert decay == {"params": [model.linear.weight], "weight_decay": 0.05}
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


def test_refuses_tensors_of_another_model():
    model = Model()
    optimizer = build_optimizer(model, OptimizerConfig(), CPU)
    with pytest.raises(KeyError, match="elsewhere"):
        load_optimizer_tensors(optimizer, model, {"elsewhere.exp_avg": torch.zeros(1)})
