"""Steps of an elastic model: the mean of losses of each number, the same on any processes, resumed, and compiled."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tests.environment import launch_command
from tests.refusals import refused
from tests.training.runs import are_equal, checkpoint_of, cut_back, finish, log_lines, start
from tests.training.tiny_run import elastic_vivit, engine_of, take_steps, tiny_config, tiny_task, tiny_train
from vidtl.training.model_setup import token_counts
from vidtl.training.step import Engine


@pytest.mark.parametrize(("step", "distilled"), [(0, 0.0), (4, 0.5)])  # the warm-up has 3 steps
@pytest.mark.parametrize("multi_label", [False, True])
def test_loss_and_gradient_are_the_mean_of_those_of_each_number(accelerator, step, distilled, multi_label):
    config = tiny_config()
    engine = Engine(elastic_vivit(), config, accelerator, replace(tiny_task(config), multi_label=multi_label))
    model, batch = elastic_vivit(), engine.task.loader.batch(step, 0)
    compare = F.binary_cross_entropy_with_logits if multi_label else F.cross_entropy
    clips, labels = engine.task.make_input(batch)
    most = model(clips)
    soft = (most.sigmoid() if multi_label else most.softmax(dim=1)).detach()
    losses = [compare(most, labels) / 3]
    losses[0].backward()
    for count in token_counts(model)["token_counts"][1:]:
        logits = model.classify_tokens(model.learn_tokens(clips), count)
        losses.append(((1 - distilled) * compare(logits, labels) + distilled * compare(logits, soft)) / 3)
        losses[-1].backward()
    norm = math.sqrt(sum(float((parameter.grad**2).sum()) for parameter in model.parameters()))
    report = take_steps(engine, 1, start=step)[0]
    assert report.loss.item() == pytest.approx(sum(losses).item(), rel=1e-5)
    assert report.grad_norm.item() == pytest.approx(norm, rel=1e-5)
    right = (most.argmax(dim=1) == labels.argmax(dim=1)).float().mean().item()
    assert multi_label or report.accuracy.item() == pytest.approx(right)


@pytest.mark.parametrize(("most", "counts"), [(1, (1,)), (2, (2, 1)), (6, (6, 1, 2, 4)), (16, (16, 1, 2, 4, 8))])
def test_training_has_all_tokens_and_powers_of_two(most, counts):
    model = elastic_vivit()
    model.elastic_tokens = most
    assert token_counts(model)["token_counts"] == counts


def test_two_processes_train_as_one_and_a_run_resumes_bitwise(accelerator, tmp_path):
    options = {"batch_size": 8, "log_every_steps": 1}
    whole = tmp_path / "whole"
    tiny_train(whole, tiny_config(**options), accelerator, model=elastic_vivit())
    two = start(launch_command("cpu_2_processes"), tmp_path / "two", processes=2, elastic=True, **options)
    assert finish(two)["form"] == "MULTI_CPU"
    for one, line in zip(log_lines(whole)[:5], log_lines(tmp_path / "two"), strict=False):
        for name in ("loss", "accuracy", "grad_norm"):
            assert line[name] == pytest.approx(one[name], rel=1e-4), (one, line)
    resumed = cut_back(whole, tmp_path / "resumed", 4)
    summary, _ = tiny_train(resumed, tiny_config(**options), accelerator, model=elastic_vivit())
    assert summary.resumed_step == 4
    assert are_equal(checkpoint_of(resumed, 12), checkpoint_of(whole, 12))


def test_blocks_compile(accelerator, monkeypatch):
    monkeypatch.setattr("torch._dynamo.config.fail_on_recompile_limit_hit", True)
    plain, compiled = (engine_of(accelerator, elastic_vivit(), compile=mode) for mode in ("none", "blocks"))
    for one, other in zip(take_steps(plain, 8), take_steps(compiled, 8), strict=True):
        torch.testing.assert_close(other.loss, one.loss, rtol=1e-4, atol=1e-5)
    with refused("training.compile", "model", "blocks", "elastic"):
        engine_of(accelerator, elastic_vivit(), compile="model")
