"""Each configuration takes one optimizer step on real clips, with smaller sizes; presets of augmentation."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from command_line import ExperimentParser, make_experiment, parse_experiment, settings_of_file
from torch import nn

from tests.environment import REPOSITORY
from vidtl.annotations.description import load_description, read_records
from vidtl.config import AUGMENTATION_PRESETS, AugmentationConfig
from vidtl.config.model import resolve_model
from vidtl.data.batch import batch_input
from vidtl.data.loader import TrainLoader
from vidtl.data.protocols import protocol_of_run
from vidtl.models import build_model, save_model_directory
from vidtl.models.complexity import count_parameters
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published, settings_of_weights
from vidtl.runtime.launch import make_accelerator
from vidtl.training.optimizer import peak_learning_rate
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.run_directory import dump_config
from vidtl.training.step import Engine, TrainingTask

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def parsed(*arguments):
    return parse_experiment(ExperimentParser("tool", ""), list(arguments))[1]


def read(path):
    return parsed("--config", str(path))


def shrunk(config):
    """Reduce the width of the model, the clips and the batch, and start from no weights."""
    model, clip = config.model, config.clip
    if model.architecture != "mini_vit":
        model = replace(model, width=16, num_heads=2, mlp_width=32)
    if clip.num_frames > 1:
        tubelet = resolve_model(model).tubelet
        frames, side = 2 * tubelet[0], 6 * tubelet[1]
        clip = replace(clip, num_frames=frames, frame_size=(side, side), short_side=side if clip.short_side else 0)
    training = replace(config.training, batch_size=4, accumulation_steps=1, init_from="", precision="fp32")
    return replace(config, model=model, clip=clip, data=replace(config.data, num_workers=0), training=training)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_head_has_command_hardware_and_the_counted_parameters(path):
    head = " ".join(path.read_text().partition("\ndata:")[0].replace("\n#", "").split())
    assert f"--config configs/{path.name}" in head
    assert "Hardware:" in head
    parameters, num_classes = re.search(r"([\d.]+) M parameters", head), re.search(r"--num_classes (\d+)", head)
    config = read(path)
    with torch.device("meta"):
        model = build_model(config.model, config.clip, int(num_classes[1]) if num_classes else 400)
    if "tools/profile_model.py" in head:
        assert parameters is not None
        assert f"{count_parameters(model) / 1e6:.4g}" == parameters[1]


@pytest.fixture(scope="module")
def accelerator():
    torch.set_num_threads(1)
    return make_accelerator("fp32")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_takes_a_step(path, toy, toy_multilabel, accelerator):
    config = shrunk(read(path))
    description = load_description(config.data.dataset)
    protocol_of_run(config.evaluation.protocol, description.protocol)
    assert {config.data.train_split, config.data.eval_split} <= set(description.splits)
    name, root = ("toy_multilabel", toy_multilabel) if description.multi_label else ("toy", toy)
    records = read_records(load_description(name), "train", root)
    torch.manual_seed(0)
    model = build_model(config.model, config.clip, len(records.classes))
    nn.init.normal_(model.classifier()[1].weight, std=0.02)  # a head of zeros passes no gradient in the first step
    loader = TrainLoader(records, config, 0, 1)
    make_input = partial(batch_input, clip=config.clip)
    count = len(records.classes)
    labels = {"num_classes": count, "multi_label": records.multi_label, "class_counts": torch.ones(count)}
    task = TrainingTask(loader=loader, make_input=make_input, save_model=save_model_directory, **labels)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = Engine(model, config, accelerator, task)
    batches = DeviceBatches(loader.iterate(0), accelerator.device)
    report = engine.step(0, engine.learning_rate.peak, batches)  # the warm-up starts at 0
    assert report.failures == []
    assert torch.isfinite(report.loss)
    assert 0 < report.grad_norm < float("inf")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    moved = {name for name in trained if not torch.equal(model.state_dict()[name], before[name])}
    assert len(moved) > 0.9 * len(trained)  # keys' biases have no gradient, and stochastic depth skips a branch


SOURCES = {path.stem: (path, ()) for path in CONFIGS} | {
    "demo": (CONFIGS[0].with_name("toy.yaml"), ()),
    "kinetics400_vivit_l_4": (CONFIGS[0].with_name("kinetics400_vivit_l.yaml"), ("--model.temporal_depth", "4")),
}

FINE_TUNED = [path for path in CONFIGS if read(path).training.init_from.startswith("runs/")]


@pytest.mark.parametrize("path", FINE_TUNED, ids=lambda path: path.stem)
def test_fine_tuning_loads_the_weights_of_the_named_run(path, tmp_path):
    """All blocks are loaded, for other classes, clips and grids."""
    config = read(path)
    source, options = SOURCES[Path(config.training.init_from).name]
    assert " ".join(options) in path.read_text()
    earlier = parsed("--config", str(source), *options)
    save_model_directory(build_model(shrunk(earlier).model, earlier.clip, 5), tmp_path)
    new_head = config.training.init_new_head
    report = load_pretrained(build_model(shrunk(config).model, config.clip, 7), tmp_path, new_head=new_head)
    assert set(report.missing) == ({"head.weight", "head.bias"} if new_head else set())
    assert (report.unexpected, report.mismatched) == ((), ())


def test_recipes_are_the_published_ones():
    """ViViT's table of settings (scenic's configuration files)."""
    expected = {
        "kinetics400_vivit_b": (0.05, 30, 4, 0.0, 0.0),
        "kinetics400_vivit_b_joint": (0.1, 30, 4, 0.0, 0.0),
        "kinetics400_vivit_l": (0.1, 30, 24, 0.0, 0.0),
        "kinetics600_vivit_l": (0.05, 30, 24, 0.0, 0.0),
        "ssv2_vivit_l": (0.4, 35, 4, 0.3, 0.3),
    }
    for name, (rate, epochs, temporal, drop_path, mixup) in expected.items():
        config = read(REPOSITORY / f"configs/{name}.yaml")
        optimizer, model = config.optimizer, resolve_model(config.model)
        assert (optimizer.name, optimizer.momentum, optimizer.clip_norm) == ("sgd", 0.9, 1.0)
        assert (optimizer.weight_decay, optimizer.reference_batch, optimizer.learning_rate) == (0.0, 0, rate)
        assert (config.schedule.length, config.schedule.warmup) == (f"{epochs} epochs", "2.5 epochs")
        assert (config.training.batch_size, config.augmentation.mixup_alpha) == (64, mixup)
        assert (model.temporal_depth, model.stochastic_depth) == (temporal, drop_path)


def test_the_cifar10_recipe_is_the_published_one():
    """S. Paul and A. R. Gosthipati, keras.io, 2021; their decay of 1e-4 is not multiplied by the learning rate."""
    config = read(REPOSITORY / "configs/cifar10_mini_vit.yaml")
    clip, optimizer, model = config.clip, config.optimizer, resolve_model(config.model)
    assert (clip.mean, clip.std, clip.frame_size, clip.short_side) == ((0, 0, 0), (1, 1, 1), (48, 48), 48)
    assert clip.short_side * config.augmentation.jitter_range[0] == pytest.approx(52, abs=0.01)
    assert (optimizer.name, optimizer.learning_rate, optimizer.betas) == ("adamw", 1e-3, (0.9, 0.999))
    assert (optimizer.epsilon, optimizer.clip_norm) == (1e-7, 0)
    assert optimizer.weight_decay * optimizer.learning_rate == pytest.approx(1e-4)
    assert (config.schedule.name, config.schedule.length, config.training.batch_size) == ("constant", "20 epochs", 256)
    assert (model.dropout, model.attention_dropout, config.augmentation.flip_probability) == (0.1, 0.1, 0.5)


@pytest.mark.parametrize(
    ("name", "rate", "weight_decay", "epochs", "smoothing"),
    [
        ("videomae_b", 5e-4 * 64 / 2 / 256, 0.05, 75, 0.1),  # of 32 videos, each with two clips
        ("videoprism_b", 1e-4, 0.0, 50, 0.0),
        ("clip_b", 2.2e-5, 1e-3, 30, 0.1),
    ],
)
def test_fine_tuning_recipes_are_the_published_ones(name, rate, weight_decay, epochs, smoothing):
    config = read(REPOSITORY / f"configs/finetune_{name}.yaml")
    assert peak_learning_rate(config.optimizer, config.training.batch_size) == pytest.approx(rate)
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("adamw", weight_decay)
    assert (config.schedule.length, config.training.label_smoothing) == (f"{epochs} epochs", smoothing)


@pytest.mark.parametrize(
    ("name", "folder", "fresh"),
    [
        ("videomae_b", "videomae_pretraining", {"pool", "head"}),
        ("videoprism_b", "videoprism_vision", {"pool", "head"}),
        ("clip_b", "timm_clip_openai_quickgelu", {"head"}),
    ],
)
def test_fine_tuning_recipes_leave_the_backbone_and_its_clips_to_the_weights(golden, name, folder, fresh):
    given = settings_of_file(REPOSITORY / f"configs/finetune_{name}.yaml")
    published = read_published(golden / "foundation" / folder)
    config = make_experiment(given, settings_of_weights(published, given))
    model = build_model(config.model, config.clip, 7)
    report = load_pretrained(model, published, new_head=config.training.init_new_head)
    assert {each.partition(".")[0] for each in report.missing} == fresh
    assert (report.unexpected, report.resized) == ((), ())
    assert (config.clip.frame_size, config.clip.mean) == ((32, 32), tuple(published.clip.get("mean", (0.5, 0.5, 0.5))))


@pytest.mark.parametrize("name", AUGMENTATION_PRESETS)
def test_a_preset_is_its_recipe(name):
    assert parsed("--augmentation.preset", name).augmentation == AUGMENTATION_PRESETS[name]
    assert AUGMENTATION_PRESETS[name] != AugmentationConfig(crop="center")


def test_the_last_of_several_presets_counts_and_keys_override_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("augmentation:\n  flip_probability: 0.25\n  preset: vivit_ssv2\n  mixup_alpha: 0.1\n")
    options = ["--augmentation.preset", "tsn", "--augmentation.preset=vivit_kinetics"]
    assert parsed(*options).augmentation == AUGMENTATION_PRESETS["vivit_kinetics"]
    expected = replace(AUGMENTATION_PRESETS["vivit_ssv2"], flip_probability=0.25, mixup_alpha=0.1)
    assert parsed(*options, "--config", str(file)).augmentation == expected
    more = parsed("--config", str(file), "--augmentation.mixup_alpha", "0.5")
    assert more.augmentation == replace(expected, mixup_alpha=0.5)
    other = parsed("--config", str(file), "--augmentation.preset=tsn").augmentation
    assert (other.crop, other.rand_augment_num_ops, other.flip_probability) == ("multi_scale", 0, 0.25)
    assert parsed().augmentation == AugmentationConfig()


def test_values_are_recorded(tmp_path):
    config = parsed("--augmentation.preset", "videomae_ssv2")
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config))
    recorded = yaml.safe_load(file.read_text())["augmentation"]
    assert "preset" not in recorded
    assert (recorded["repeats"], recorded["rand_augment_magnitude"], recorded["flip_probability"]) == (2, 7.0, 0.0)
    assert parsed("--config", str(file)) == config
