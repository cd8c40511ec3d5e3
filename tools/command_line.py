"""Command lines of the tools: `--section.key value` over a YAML file over the defaults of `vidtl.config`.

Every option and its help text come from the dataclasses. A mistake ends as a `UserError` that names the key, the value
and what is allowed.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from vidtl.config import AUGMENTATION_PRESETS, ExperimentConfig
from vidtl.config.checks import choices_of, require_choice
from vidtl.config.dotted import dotted
from vidtl.config.yaml_file import read_mapping
from vidtl.errors import UserError, did_you_mean

MAX_CONFIG_BYTES = 1_000_000

_PRESET = "augmentation.preset"

Settings = TypeVar("Settings")


class PlainParser(argparse.ArgumentParser):
    """For tools without an experiment: a mistake in the options is told in one line, as every tool does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def experiment_parser(tool: str, description: str) -> ArgumentParser:
    """A parser with every option of `ExperimentConfig`; the tool adds its own to it."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=tool,
        usage=f"{tool} [options] [--section.key value ...]",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below; see configs/")
    for section in dataclasses.fields(ExperimentConfig):
        parser.add_class_arguments(get_type_hints(ExperimentConfig)[section.name], section.name)
    names = ", ".join(AUGMENTATION_PRESETS)
    parser.add_argument(
        f"--{_PRESET}", type=str, default="", help=f"A recipe that fills in the keys of `augmentation`: {names}"
    )
    return parser


def parse_experiment(
    parser: ArgumentParser, arguments: list[str], defaults: Path | None = None
) -> tuple[Namespace, ExperimentConfig]:
    """The tool's own options, and the experiment: `arguments` over the YAML file `defaults` over what
    `augmentation.preset` names over the built-in defaults.

    Raises:
        UserError: an unknown key (the nearest valid one is named), a value of the wrong type or range, a missing file.
    """
    known = sorted(_option_names(parser))
    _check_arguments(arguments, known)
    if defaults:
        arguments = ["--config", str(defaults), *arguments]
    files = [Path(path) for path in _values_of("--config", arguments)]
    contents = [(path, _checked_file(path, known)) for path in files]
    for key, allowed in _choices(ExperimentConfig):
        for value in _values_of(f"--{key}", arguments):
            _check_choice("", key, value, allowed)
        for path, content in contents:
            _check_choice(f"{path}: ", key, content.get(key), allowed)
    try:
        namespace = parser.parse_args([*_preset(arguments), *arguments])
        del namespace[_PRESET]
        built = parser.instantiate(namespace)
    except argparse.ArgumentError as error:
        raise UserError(_one_line(str(error))) from error
    sections = {field.name: built[field.name] for field in dataclasses.fields(ExperimentConfig)}
    return namespace, ExperimentConfig(**sections)


def _preset(arguments: list[str]) -> list[str]:
    """The preset that the command line or its files name, as options that come before all others."""
    name = given_setting(_PRESET, arguments)
    if not name:
        return []
    if str(name) not in AUGMENTATION_PRESETS:
        raise UserError(f"{_PRESET} is {name!r}; {did_you_mean(str(name), AUGMENTATION_PRESETS)}")
    values = {"augmentation": dataclasses.asdict(AUGMENTATION_PRESETS[str(name)])}
    return ["--config", yaml.safe_dump(json.loads(json.dumps(values)))]


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """A YAML file as a dataclass, for tools that have a file of their own kind.

    Raises:
        UserError: a missing or unreadable file, an unknown key, a value of the wrong type or range.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    _checked_file(path, None)
    try:
        return kind(**vars(parser.instantiate(parser.parse_path(str(path)))))
    except (argparse.ArgumentError, UserError) as error:
        raise UserError(f"{path}: {_one_line(str(error))}") from error


def arguments_of_process() -> list[str]:
    """What stands on the command line after the tool's name."""
    return sys.argv[1:]


def last_value(option: str, arguments: list[str]) -> str | None:
    """The value of an option that decides where the defaults come from, before anything is parsed."""
    values = list(_values_of(option, arguments))
    return values[-1] if values else None


def given_setting(key: str, arguments: list[str]) -> object:
    """What an option or a file of the command line says of a setting, the last of them as in the parser; or None."""
    given: object = None
    for option, value in _options(arguments):
        if option == f"--{key}":
            given = value
        elif option == "--config":
            given = _checked_file(Path(value), None).get(key, given)
    return given


def _option_names(parser: ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # argparse has no public list of its options
        for option in action.option_strings:
            if option.startswith("--"):
                yield option.removeprefix("--")


def _check_arguments(arguments: list[str], known: list[str]) -> None:
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and name not in known:
            raise UserError(f"unknown option --{name}; {did_you_mean(name, known)}")


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Options with their values; of one that takes none, with what follows it."""
    for argument, following in zip_longest(arguments, arguments[1:]):
        option, assigned, value = argument.partition("=")
        if option.startswith("--") and (assigned or following is not None):
            yield option, value if assigned else following


def _values_of(option: str, arguments: list[str]) -> Iterator[str]:
    return (value for name, value in _options(arguments) if name == option)


def _checked_file(path: Path, known: list[str] | None) -> dict[str, Any]:
    """Its keys and values; names an unreadable file, and an unknown key where the `known` ones are given, before the
    parser sees them."""
    if not path.is_file():
        neighbours = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(f"config file {str(path)!r} does not exist; {did_you_mean(path.name, neighbours)}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UserError(f"config file {str(path)!r} has {path.stat().st_size} bytes; allowed: {MAX_CONFIG_BYTES}")
    content = read_mapping(path)
    if known is not None:
        _check_keys(path, content, known)
    return dotted(content)


def _check_keys(path: Path, section: dict[str, Any], known: list[str], prefix: str = "") -> None:
    """The parser takes no notice of keys with dots, and fails without a word at a section that is a value."""
    for name, value in section.items():
        key = f"{prefix}{name}"
        if "." in str(name):
            raise UserError(f"{path}: the key {key!r} has a dot; allowed: a section, as in clip: {{stride: 2}}")
        if any(each.startswith(f"{key}.") for each in known):
            if not isinstance(value, dict):
                raise UserError(f"{path}: {key} is {value!r}; allowed: a section with keys")
            _check_keys(path, value, known, f"{key}.")
        elif key not in known:
            raise UserError(f"{path}: unknown key {key!r}; {did_you_mean(key, known)}")


def _choices(kind: type, prefix: str = "") -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Each option that takes one of a few words or numbers, with these."""
    for name, hint in get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _choices(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif choices_of(hint):
            yield f"{prefix}{name}", choices_of(hint)


def _check_choice(where: str, key: str, value: object, allowed: tuple[str | int, ...]) -> None:
    """On the command line numbers are words, too; what is not a word at all is left to the parser."""
    if isinstance(value, str) and value not in ("null", *map(str, allowed)):
        require_choice(f"{where}{key}", value, allowed)


def _one_line(message: str) -> str:
    return " ".join(message.split())
