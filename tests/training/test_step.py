import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.training import tiny_run
from tests.training.tiny_run import NUM_RECORDS, tiny_config, tiny_model, tiny_task
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import Engine


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)


def engine_for(accelerator, **training):
    config = tiny_config(**training)
    return Engine(tiny_model(), config, accelerator, tiny_task(config))


def take_steps(engine, start, stop, learning_rate=0.01):
    batches = DeviceBatches(engine.task.loader.iterate(start), engine.accelerator.device)
    return [engine.step(step, learning_rate, batches) for step in range(start, stop)]


@pytest.mark.usefixtures("no_dropout")
def test_gradient_is_the_mean_over_real_samples_whatever_the_accumulation(accelerator):
    reports = {n: take_steps(engine_for(accelerator, accumulation_steps=n), 0, 6) for n in (1, 2, 4, 8)}
    assert [report.num_clips for report in reports[1]] == [8, 8, 6, 8, 8, 6]
    for n in (2, 4, 8):
        for one, other in zip(reports[1], reports[n], strict=True):
            assert other.loss.item() == pytest.approx(one.loss.item(), rel=1e-5)
            assert other.grad_norm.item() == pytest.approx(one.grad_norm.item(), rel=1e-4)


@pytest.mark.usefixtures("no_dropout")
def test_padding_does_not_count(accelerator):
    """Step 2 of an epoch has 6 real samples of 8: loss and gradient equal those of the 6 alone."""
    engine = engine_for(accelerator)
    report = take_steps(engine, 2, 3)[0]
    model, batch = tiny_model(), engine.task.loader.batch(2, 0)
    real = batch.weights == 1
    assert real.sum() == NUM_RECORDS - 16
    logits = model(engine.task.make_input(replace(batch, pixels=batch.pixels[real]))[0])
    loss = nn.functional.cross_entropy(logits, batch.targets[real])
    loss.backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))
    assert report.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert report.grad_norm.item() == pytest.approx(norm, rel=1e-5)


def test_dropout_depends_on_seed_step_and_micro_batch_only(accelerator):
    def first_loss(start, seed=0, disturb=False):
        engine = engine_for(accelerator, seed=seed)
        first = engine.task.loader.batch(0, 0)
        engine.task.loader.batch = lambda step, micro: first  # the same samples wherever it starts
        if disturb:
            torch.rand(17)
        return take_steps(engine, start, start + 1)[0].loss.item()

    assert first_loss(0) == first_loss(0, disturb=True)
    assert first_loss(0) != first_loss(1)
    assert first_loss(0) != first_loss(0, seed=1)


def test_clips_the_whole_gradient_and_reports_its_norm_before(accelerator):
    start = nn.utils.parameters_to_vector(tiny_model().parameters())
    moved = {}
    for clip_norm in (0.0, 0.1):
        config = tiny_config()
        sgd = replace(config.optimizer, name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=clip_norm)
        config = replace(config, optimizer=sgd)
        engine = Engine(tiny_model(), config, accelerator, tiny_task(config))
        report = take_steps(engine, 0, 1, learning_rate=1.0)[0]
        moved[clip_norm] = (nn.utils.parameters_to_vector(engine.model.parameters()) - start).norm().item()
        assert report.grad_norm.item() > 0.1
    assert moved[0.0] == pytest.approx(report.grad_norm.item(), rel=1e-4)
    assert moved[0.1] == pytest.approx(0.1, rel=1e-3)
