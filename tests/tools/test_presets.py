"""`augmentation.preset` gives defaults of a recipe; given keys override it, and a run records values only."""

import dataclasses

import pytest
import yaml
from command_line import ExperimentParser, parse_experiment

from vidtl.config import AUGMENTATION_PRESETS, AugmentationConfig
from vidtl.training.run_directory import dump_config


def parsed(*arguments):
    return parse_experiment(ExperimentParser("train.py", ""), list(arguments))[1]


@pytest.mark.parametrize("name", AUGMENTATION_PRESETS)
def test_a_preset_is_its_recipe(name):
    assert parsed("--augmentation.preset", name).augmentation == AUGMENTATION_PRESETS[name]
    assert AUGMENTATION_PRESETS[name] != AugmentationConfig(crop="center")


def test_the_last_of_several_presets_counts_and_keys_override_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("augmentation:\n  flip_probability: 0.25\n  preset: vivit_ssv2\n  mixup_alpha: 0.1\n")
    options = ["--augmentation.preset", "tsn", "--augmentation.preset=vivit_kinetics"]
    assert parsed(*options).augmentation == AUGMENTATION_PRESETS["vivit_kinetics"]
    expected = dataclasses.replace(AUGMENTATION_PRESETS["vivit_ssv2"], flip_probability=0.25, mixup_alpha=0.1)
    assert parsed(*options, "--config", str(file)).augmentation == expected
    more = parsed("--config", str(file), "--augmentation.mixup_alpha", "0.5")
    assert more.augmentation == dataclasses.replace(expected, mixup_alpha=0.5)
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
