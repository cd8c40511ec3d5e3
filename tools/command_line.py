"""Command lines of the tools: options over a YAML file over a preset over `vidtl.config`; imports nothing slow."""

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

from vidtl.config import AUGMENTATION_PRESETS, AugmentationConfig, ExperimentConfig
from vidtl.config.load import Leaf, build, describe, leaves, parse_text, read_values, read_yaml
from vidtl.errors import UserError, did_you_mean, nearest_key

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""Configurations of the project, which a wheel has, too."""

DEFAULTS = leaves(ExperimentConfig)
"""Settings by dotted key."""

EXIT_UNREADABLE = 4
"""Exit code where a video could not be read."""

PRESET = "augmentation.preset"
_SETTINGS = DEFAULTS | {PRESET: Leaf(Literal[tuple(AUGMENTATION_PRESETS)], "", AugmentationConfig, frozenset())}


class PlainParser(argparse.ArgumentParser):
    """Parser whose errors are one-line `UserError`s that name the nearest option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for argument in sys.argv[1:] if args is None else args:
            option = argument.partition("=")[0]
            if re.match("--|-[A-Za-z]{2}", option) and option not in known:
                raise UserError(f"unknown option {option}; {nearest_key(option, known, 'see --help')}")
            if "." in option and f"--{option}" in known:
                raise UserError(f"unknown argument {argument!r}; did you mean '--{option}'?")
        return self.parse_intermixed_args(args, namespace)  # VIDEO... after options, too

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[0] if action.option_strings else action.dest
            raise UserError(f"{name} is {value!r}; {did_you_mean(str(value), map(str, action.choices))}")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


class ExperimentParser(PlainParser):
    """Parser with an option for each setting; `settings` of its result has those given, by dotted key."""

    common_keys: Collection[str] = (
        *("data.dataset", "data.root", "data.num_workers", "clip.num_frames", "clip.frame_size", "model.architecture"),
        *("model.size", "optimizer.learning_rate", "schedule.length", "training.batch_size", "training.precision"),
        *("training.init_from", "evaluation.protocol"),
    )
    """Settings that `--help` shows; `--help all` shows every one."""

    def __init__(self, tool: str, description: str) -> None:
        usage = f"{tool} [options] [--section.key value ...]"
        super().__init__(usage=usage, description=description, add_help=False)
        self.set_defaults(settings={})
        text = "Print the common options, or `--help all`: all of them"
        self.add_argument("-h", "--help", action=_Help, nargs="?", metavar="all", help=text)
        self.add_argument("--config", action=_Given, help="YAML file with settings, or one of ours: toy")
        groups = {section.name: self.add_argument_group(section.name) for section in fields(ExperimentConfig)}
        common: dict[str, Any] = {"action": _Given, "default": argparse.SUPPRESS}
        for key, leaf in _SETTINGS.items():
            text = "Published recipe for the keys of `augmentation`"  # format_help fills in the others
            groups[key.partition(".")[0]].add_argument(f"--{key}", metavar=describe(leaf.hint), help=text, **common)

    def format_help(self) -> str:
        """Add docstrings and defaults to the options, and hide settings that are not common ones."""
        for action in self._actions:
            if action.dest in _SETTINGS and action.dest not in self.common_keys:
                action.help = argparse.SUPPRESS
            elif leaf := DEFAULTS.get(action.dest):
                default = {"": "''", None: "null"}.get(leaf.default, leaf.default)
                default = list(default) if isinstance(default, tuple) else default
                text = f"{field_docstrings(leaf.owner)[action.dest.rpartition('.')[2]]} (default: {default})"
                action.help = text.replace("%", "%%")
        return super().format_help()


class ModelParser(ExperimentParser):
    """Parser of a tool that uses a trained model."""

    common_keys = "data.root", "data.eval_split", "data.num_workers", "evaluation.protocol", "evaluation.batch_size"

    def __init__(self, tool: str, description: str) -> None:
        super().__init__(tool, description)
        add_checkpoint(self)

    def check(self) -> argparse.Namespace:
        """Parse the command line and check that the checkpoint exists."""
        from vidtl.training.checkpoint import require_directory

        options = self.parse_args()
        require_directory(options.checkpoint)
        return options


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a trained model, for `find_checkpoint`."""
    text = "Folder of a run, one checkpoint of it, or any model directory"
    parser.add_argument("--checkpoint", type=Path, required=True, help=text)
    text = "Which checkpoint of a run: best, last, or its step; default: the best one if the run kept it, else the last"
    parser.add_argument("--step", default="", metavar="best|last|N", help=text)


class _Help(argparse.Action):
    """Action that prints the help and ends the process."""

    def __call__(self, parser: Any, namespace: object, value: Any, option: str | None = None) -> None:
        if value == "all":
            parser.common_keys = _SETTINGS
        parser.print_help()
        parser.exit()


class _Given(argparse.Action):
    """Action that stores a setting, or those of a file, over earlier ones."""

    def __call__(self, parser: object, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        hint = _SETTINGS[self.dest].hint if self.dest in _SETTINGS else None
        given = {self.dest: parse_text(value, hint, self.dest)} if hint else settings_of_file(find_config(value))
        namespace.settings = namespace.settings | given


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: a whole number, 1 or more")
    return int(text)


def add_tokens(parser: argparse.ArgumentParser, several: bool = True) -> None:
    """Add --tokens: a tuple of one number, of `several`, or an empty one for auto; and --confidence."""

    def parse(text: str) -> tuple[int, ...]:
        counts = (text,) if not several else () if text == "auto" else text.split(",")
        return tuple(sorted(set(map(positive, counts))))

    text = f"Tokens per timestep of an elastic model{'; auto: 1, 2, 4, ..., more until a clip is sure' * several}"
    parser.add_argument("--tokens", type=parse, metavar="K" + "|K,K,...|auto" * several, help=text)
    parser.set_defaults(confidence=None)
    if several:
        text = "Confidence of a sure answer, above 0 to 1, for --tokens auto (default: 0.9) or several"
        parser.add_argument("--confidence", type=float, help=text)


def add_frame_rate(parser: argparse.ArgumentParser) -> None:
    """Add the option --frame_rate."""
    text = "Frames per second of folders of numbered images"
    parser.add_argument("--frame_rate", type=_frame_rate, help=text)


def _frame_rate(text: str) -> float:
    if not 0 < float(text) < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: above 0 and below 10000 frames per second")
    return float(text)


@cache
def field_docstrings(kind: type) -> dict[str, str]:
    """Read the docstrings of the fields of a dataclass from its source."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    return {
        node.target.id: " ".join(ast.literal_eval(text.value).split())
        for node, text in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def parse_experiment(
    parser: ExperimentParser, arguments: list[str] | None = None
) -> tuple[argparse.Namespace, ExperimentConfig]:
    """Parse the command line into the options of the tool and the experiment."""
    options = parser.parse_args(arguments)
    return options, make_experiment(options.settings)


def find_config(name: str) -> Path:
    """Find a YAML file: the user's own, or else one of `CONFIGS` as `configs/toy.yaml`, `toy.yaml` or `toy`."""
    file, ours = Path(name), CONFIGS / name.removeprefix("configs/")
    if file.is_file() or (file.suffix and file.parent.is_dir() and not ours.is_file()):
        return file
    return ours if ours.suffix == ".yaml" else ours.with_name(f"{ours.name}.yaml")


def settings_of_file(file: Path) -> dict[str, Any]:
    """Read a YAML file of an experiment as settings by dotted key."""
    return read_values(read_yaml(file), _SETTINGS)


def make_experiment(given: Mapping[str, Any], recorded: Mapping[str, Any] = {}) -> ExperimentConfig:
    """Build an experiment from settings by dotted key: those given over those recorded over the preset's."""
    values = {key: leaf.default for key, leaf in DEFAULTS.items()}
    settings = {**recorded, **given}
    if preset := settings.pop(PRESET, ""):
        values |= {f"augmentation.{name}": value for name, value in vars(AUGMENTATION_PRESETS[preset]).items()}
    return build(ExperimentConfig, values | settings)
