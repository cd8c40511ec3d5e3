"""Options of an experiment: precedence, choices, types and mistakes."""

from pathlib import Path

import pytest
from command_line import CONFIGS, DEFAULTS, ExperimentParser, find_config, parse_experiment, settings_of_file

from tests.refusals import refused
from vidtl.config import AUGMENTATION_PRESETS, ExperimentConfig, ModelConfig
from vidtl.config.checks import choices_of

CHOICES = [(key, value) for key, leaf in DEFAULTS.items() for value in choices_of(leaf.hint)]

BESIDE = dict.fromkeys(("decord", "torchcodec"), ("--data.pixel_format", "rgb")) | {
    "model.token_learner.pooling": ("--model.token_learner.version", "v1"),
    "step": ("--schedule.milestones", "['1 epoch']"),
}
"""Options that some keys or values need besides."""


def parsed(*arguments: str | Path) -> ExperimentConfig:
    return parse_experiment(ExperimentParser("train.py", ""), [str(each) for each in arguments])[1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("clip: {stride: 3}\noptimizer: {learning_rate: 8e-3}\naugmentation: {preset: tsn}\n")
    return path


@pytest.mark.parametrize(("key", "value"), CHOICES, ids=str)
def test_every_choice_is_accepted(key: str, value: str | int) -> None:
    found: object = parsed(f"--{key}", str(value), *BESIDE.get(key, BESIDE.get(str(value), ())))
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_options_replace_the_file_which_replaces_the_preset_which_replaces_the_defaults(file: Path) -> None:
    config = parsed("--config", file)
    assert (config.clip.stride, config.optimizer.learning_rate) == (3, 0.008)
    assert config.augmentation == AUGMENTATION_PRESETS["tsn"]
    options = ("--clip.stride=4", "--augmentation.flip_probability", "0.25")
    assert parsed("--config", file, *options).clip.stride == 4
    assert parsed("--config", file, *options).augmentation.flip_probability == 0.25
    assert parsed("--clip.stride=4", "--config", file).clip.stride == 3  # of several, the last counts
    assert parsed() == ExperimentConfig()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("clip.frame_size", "[32,32]", (32, 32)),
        ("optimizer.learning_rate", "1e-3", 0.001),
        ("training.trainable", "['head']", ("head",)),
        ("training.trainable", "head", ("head",)),
        ("training.trackers", "[]", ()),
        ("evaluation.averaged_weights", "true", True),
        ("data.root", "0010", "0010"),
        ("data.root", "null", "null"),
        ("model.width", "null", None),
        ("model.tubelet", "[4, 4, 4]", (4, 4, 4)),
        ("schedule.length", "2_000 samples", "2_000 samples"),
    ],
)
def test_values_have_the_type_of_their_setting(key: str, text: str, value: object) -> None:
    section, name = key.split(".")
    found = getattr(getattr(parsed(f"--{key}", text), section), name)
    assert (found, type(found)) == (value, type(value))


def test_nulls_and_sizes_as_numbers_are_read_from_files(file: Path) -> None:
    file.write_text("model: {architecture: t2t_vit, size: 14, width: null, token_learner: {version: null}}\n")
    assert parsed("--config", file).model == ModelConfig(architecture="t2t_vit", size="14")
    assert parsed("--model.architecture", "t2t_vit", "--model.size", "14").model.size == "14"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--confg=x",), ("--confg", "'--config'?")),
        (("--lr", "1"), ("--lr", "'--optimizer.learning_rate'?")),
        (("-lr", "1"), ("-lr", "'--optimizer.learning_rate'?")),
        (("--Weight-Decay=1",), ("--Weight-Decay", "'--optimizer.weight_decay'?")),
        (("--batch-size", "2"), ("--batch-size", "'--training.batch_size'", "'--evaluation.batch_size'")),
        (("--clip.batch_size", "2"), ("--clip.batch_size", "'--training.batch_size'", "'--evaluation.batch_size'")),
        (("--optimizer.epochs", "2"), ("--optimizer.epochs", "'--schedule.length'?")),
        (("--workers", "2"), ("--workers", "'--data.num_workers'?")),
        (("--gpus", "2"), ("--gpus; see --help",)),
        (("clip.stride=2",), ("clip.stride=2", "'--clip.stride'?")),
        (("--training.precision", "half"), ("training.precision", "'half'", "auto, fp32, bf16, fp16")),
        (("--schedule.length", "2"), ("schedule.length", "'2'", "unit", "epochs")),
        (("--config=no.yaml",), ("'no.yaml'", str(Path.cwd()))),
        (("--clip.stride",), ("clip.stride",)),
        (("--clip.stride", "2.5"), ("clip.stride", "2.5", "int")),
        (("--evaluation.averaged_weights", "1"), ("evaluation.averaged_weights", "bool")),
        (("--training.trackers", "[tensorbord]"), ("training.trackers", "'tensorbord'", "'tensorboard'")),
        (("--augmentation.preset", "tns"), ("augmentation.preset", "'tns'", "'tsn'")),
    ],
)
def test_mistakes_name_key_value_and_what_is_allowed(arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    with refused(*parts):
        parsed(*arguments)


def test_a_mistake_in_a_file_is_found_even_where_an_option_replaces_it(file: Path) -> None:
    file.write_text("training:\n  seed: 1\nclip:\n  stride: fast\n")
    with refused(f"{file}:4", "clip.stride", "'fast'", "int"):
        parsed("--config", file, "--clip.stride", "2")


def test_help_has_type_default_and_docstring_of_common_settings_or_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for options in (["--help"], ["--help", "all"]):
        with pytest.raises(SystemExit):
            parsed(*options)
        texts.append(" ".join(capsys.readouterr().out.split()))
    short, text = texts
    assert [key for key in DEFAULTS if (f"--{key} " in short) != (key in ExperimentParser.common_keys)] == []
    assert [key for key in DEFAULTS if f"--{key} " not in text] == []
    assert "--clip.frame_size tuple[int, int] Height and width of the model" in text
    assert text.count("(default: ") >= len(DEFAULTS)
    assert " | ".join(AUGMENTATION_PRESETS) in text


def test_configurations_are_found_by_name_unless_the_user_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("configs/toy.yaml", "toy.yaml", "toy")
    assert {find_config(name) for name in names} == {CONFIGS / "toy.yaml"}
    (tmp_path / "toy.yaml").touch()
    assert [find_config(name) for name in names] == [CONFIGS / "toy.yaml", Path("toy.yaml"), CONFIGS / "toy.yaml"]
    for name in ("toi", "configs/toi.yaml"):
        with refused("toi.yaml", "'toy.yaml'"):
            settings_of_file(find_config(name))
