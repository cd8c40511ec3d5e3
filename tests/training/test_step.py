import json
import math
import subprocess
from dataclasses import replace

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from tests.environment import ENVIRONMENT, launch_command
from tests.refusals import refused
from tests.training.tiny_run import NUM_RECORDS, engine_of, take_steps, tiny_config, tiny_model, tiny_task
from vidtl.config import AugmentationConfig, OptimizerConfig
from vidtl.training.losses import LOSSES, Loss, balanced_class_weights, find_loss
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import Engine


@pytest.mark.usefixtures("no_dropout")
@pytest.mark.parametrize("options", [{}, {"loss": "focal", "balance": "loss", "label_smoothing": 0.1}])
def test_the_gradient_is_equal_for_any_accumulation(accelerator, options):
    whole, *parts = (
        take_steps(engine_of(accelerator, tiny_model(), accumulation_steps=n, **options), 6) for n in (1, 2, 4, 8)
    )
    assert [report.num_clips for report in whole] == [8, 8, 6, 8, 8, 6]
    for reports in parts:
        for one, other in zip(whole, reports, strict=True):
            assert other.loss.item() == pytest.approx(one.loss.item(), rel=1e-5)
            assert other.grad_norm.item() == pytest.approx(one.grad_norm.item(), rel=1e-4)
            assert other.accuracy == one.accuracy


@pytest.mark.usefixtures("no_dropout")
def test_padding_changes_neither_loss_nor_gradient(accelerator):
    """Step 2 of an epoch has 6 real samples of 8: loss and gradient equal those of the 6 alone."""
    engine = engine_of(accelerator, tiny_model())
    report = take_steps(engine, 1, start=2)[0]
    model, batch = tiny_model(), engine.task.loader.batch(2, 0)
    real = batch.weights == 1
    assert real.sum() == NUM_RECORDS - 16
    logits = model(engine.task.make_input(replace(batch, pixels=batch.pixels[real]))[0])
    loss = nn.functional.cross_entropy(logits, batch.targets[real])
    loss.backward()
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))
    assert report.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert report.grad_norm.item() == pytest.approx(norm, rel=1e-5)
    right = logits.argmax(dim=1) == batch.targets[real].argmax(dim=1)
    assert 0 < report.accuracy.item() == pytest.approx(right.float().mean().item())


def test_mixed_clips_and_several_labels_have_no_accuracy(accelerator):
    mixed = replace(tiny_config(), augmentation=AugmentationConfig(mixup_alpha=0.3))
    for config, multi_label in ((mixed, False), (tiny_config(), True)):
        task = replace(tiny_task(config), multi_label=multi_label)
        assert take_steps(Engine(tiny_model(), config, accelerator, task), 1)[0].accuracy.isnan()


def test_dropout_depends_on_seed_step_and_micro_batch_only(accelerator):
    def first_loss(start, seed=0, drawn=0):
        engine = engine_of(accelerator, tiny_model(), seed=seed)
        first = engine.task.loader.batch(0, 0)
        engine.task.loader.batch = lambda step, micro: first  # the same samples wherever it starts
        torch.rand(drawn)
        return take_steps(engine, 1, start)[0].loss.item()

    assert first_loss(0) == first_loss(0, drawn=17)
    assert first_loss(0) != first_loss(1)
    assert first_loss(0) != first_loss(0, seed=1)


def test_the_whole_gradient_is_clipped_and_its_norm_before_reported(accelerator):
    start = nn.utils.parameters_to_vector(tiny_model().parameters())
    moved = {}
    for clip_norm in (0.0, 0.1):
        sgd = OptimizerConfig(name="sgd", momentum=0.0, weight_decay=0.0, clip_norm=clip_norm)
        engine = Engine(tiny_model(), replace(tiny_config(), optimizer=sgd), accelerator, tiny_task(tiny_config()))
        report = engine.step(0, 1.0, DeviceBatches(engine.task.loader.iterate(0), accelerator.device))
        moved[clip_norm] = (nn.utils.parameters_to_vector(engine.model.parameters()) - start).norm().item()
        assert report.grad_norm.item() > 0.1
    assert moved[0.0] == pytest.approx(report.grad_norm.item(), rel=1e-4)
    assert moved[0.1] == pytest.approx(0.1, rel=1e-3)


TWO = """
import json
from dataclasses import replace
import torch
from torch import nn
from tests.training.tiny_run import NUM_CLASSES
from tests.training.tiny_run import engine_of, take_steps
from vidtl.config import ClipConfig, ModelConfig
from vidtl.models import build_model
from vidtl.runtime.signals import run_tool
from vidtl.runtime.launch import make_accelerator

torch.set_num_threads(1)
accelerator = make_accelerator("bf16")
assert accelerator.num_processes == 2, accelerator.num_processes
sizes = {"width": 16, "num_heads": 2, "head_width": 8, "mlp_width": 16}
mini_vit = ModelConfig(architecture="mini_vit", tokenizer="t2t_performer", **sizes)
torch.manual_seed(3)
model = build_model(mini_vit, ClipConfig(num_frames=1, frame_size=(48, 48)), NUM_CLASSES)
model.head = nn.Sequential(nn.BatchNorm1d(16), model.head)
dtypes = {}
def note(name, module):
    module.register_forward_hook(lambda m, _, out: dtypes.update({name: [str(m.weight.dtype), str(out.dtype)]}))
block = model.repeated_blocks()[-1]
for kind in (nn.LayerNorm, nn.Linear):
    note(kind.__name__, next(module for module in block.modules() if isinstance(module, kind)))
engine = engine_of(accelerator, model, "adamw", ema_decay=0.5)
enlarge = nn.Upsample(size=(48, 48))
as_images = lambda batch: (enlarge(batch.pixels[:, 0].float() / 127.5 - 1)[:, None], batch.targets)
engine.task = replace(engine.task, make_input=as_images)
losses = [report.loss for report in take_steps(engine, 2)]
with engine.evaluated() as evaluated:
    means = accelerator.gather(evaluated.head[0].running_mean[None])
loss = accelerator.reduce(torch.stack(losses))
if accelerator.is_main_process:
    policy = str(getattr(getattr(accelerator.state, "fsdp_plugin", None), "mixed_precision_policy", None))
    form = {"form": accelerator.distributed_type.value, "policy": policy}
    print(json.dumps({**form, "dtypes": dtypes, "means": means.tolist(), "loss": loss.tolist()}))
run_tool(lambda: None)  # leaves the group in order
"""


def test_both_forms_are_autocast_over_float32_weights_and_evaluate_the_same_running_means(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    results = []
    for config in ("cpu_2_processes", "fsdp_cpu_2_processes"):
        command = launch_command(config, str(script))
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.splitlines()[-1]))
    assert [each["form"] for each in results] == ["MULTI_CPU", "FSDP"]
    for result in results:
        first, second = result["means"]
        assert first == second
        assert any(first)
    whole, shared = results
    assert whole["dtypes"] == shared["dtypes"]
    assert shared["dtypes"]["LayerNorm"][0] == "torch.float32"
    assert shared["dtypes"]["Linear"] == ["torch.float32", "torch.bfloat16"]
    assert shared["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    assert "param_dtype=None, reduce_dtype=None, output_dtype=None" in shared["policy"]


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0]])
ONE_HOT = torch.eye(3)[[0, 2, 1]]
MULTI_HOT = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 0.5])
ALL = [(name, multi_label) for name, row in LOSSES.items() for multi_label in (False, True) if row[multi_label]]


def by_hand(name, logits, targets, multi_label, smoothing, weights):
    """Per-sample losses from the definitions, in float64."""
    logits, targets = logits.double(), targets.double() * (1 - smoothing) + smoothing / 3
    gamma = 2 if name == "focal" else 0
    if name == "binary_cross_entropy" or multi_label:
        p = 1 / (1 + torch.exp(-logits))
        positive = weights * targets * (1 - p) ** gamma * torch.log(p)
        return -(positive + (1 - targets) * p**gamma * torch.log(1 - p)).mean(dim=1)
    p = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    return -(weights * targets * (1 - p) ** gamma * torch.log(p)).sum(dim=1)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("name", "multi_label"), ALL)
def test_losses_equal_their_definition_without_padding_in_any_split(name, multi_label, smoothing, class_weights):
    targets, samples = MULTI_HOT if multi_label else ONE_HOT, torch.tensor([1.0, 0.0, 1.0])
    loss = Loss(function=find_loss(name, multi_label), label_smoothing=smoothing, class_weights=class_weights)
    weights = 1.0 if class_weights is None else class_weights
    expected = (by_hand(name, LOGITS, targets, multi_label, smoothing, weights) * samples).sum()
    assert_allclose(loss(LOGITS, targets, samples), expected, rtol=1e-5)
    parts = sum(loss(LOGITS[i : i + 1], targets[i : i + 1], samples[i : i + 1]) for i in range(3))
    assert_allclose(parts, expected, rtol=1e-5)


def test_losses_are_computed_in_float32_and_focal_ones_are_finite_at_extreme_logits():
    logits = LOGITS.bfloat16()
    total = Loss(function=find_loss("", multi_label=False))(logits, ONE_HOT, torch.ones(3))
    assert total.dtype == torch.float32
    assert_allclose(total, by_hand("cross_entropy", logits, ONE_HOT, False, 0.0, 1.0).sum(), rtol=1e-6)
    logits = torch.tensor([[300.0, -300.0, 0.0]] * 2, requires_grad=True)
    for multi_label in (False, True):
        loss = Loss(function=find_loss("focal", multi_label))(logits, ONE_HOT[:2], torch.ones(2))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


DEFAULTS = {False: "cross_entropy", True: "binary_cross_entropy"}


@pytest.mark.parametrize(
    ("name", "multi_label", "parts"),
    [("focl", False, ("'focl'", "'focal'")), ("cross_entropy", True, ("'binary_cross_entropy'", "multi-label"))],
)
def test_the_default_follows_the_labels_and_a_loss_that_does_not_exist_or_fit_is_refused(name, multi_label, parts):
    assert find_loss("", multi_label) is find_loss(DEFAULTS[multi_label], multi_label)
    with refused("training.loss", *parts):
        find_loss(name, multi_label)


def test_balanced_weights_are_inverse_to_the_frequency_with_mean_1_over_the_samples(accelerator):
    assert_allclose(balanced_class_weights(torch.tensor([10, 30, 30])), [7 / 3, 7 / 9, 7 / 9], rtol=1e-6)
    assert_allclose(balanced_class_weights(torch.tensor([10, 0, 30])), [2, 0, 2 / 3], rtol=1e-6)
    config = tiny_config(balance="loss")
    task = replace(tiny_task(config), class_counts=torch.tensor([2, 4, 16]))
    loss = Engine(tiny_model(), config, accelerator, task).loss
    expected = by_hand("cross_entropy", LOGITS, ONE_HOT, False, 0.0, torch.tensor([22 / 6, 22 / 12, 22 / 48])).sum()
    assert_allclose(loss(LOGITS, ONE_HOT, torch.ones(3)), expected, rtol=1e-6)
