"""Strict reading of YAML files and mappings into dataclasses; errors name file, line, key, value and allowed values."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from vidtl.config.documents import YAML_BYTES, parse_yaml, read_text
from vidtl.errors import UserError, did_you_mean, existing, nearest_key

T = TypeVar("T")

RETIRED = {"data.worker_timeout_s": None, "training.class_weights": "none"}
"""Settings that earlier versions recorded with their runs, with the value that decided no result; None: any."""
EARLIER = {"activation": "gelu_tanh"}
"""Keys of `model`, for ViViTs, that earlier versions did not record, with their values of that time."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Document:
    """A mapping and its origin."""

    content: Any
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)  # of each dotted key

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise a UserError that begins with file and line of `key`."""
        place = ":".join(str(part) for part in (self.file, self.lines.get(key)) if part)
        raise UserError(f"{place}: {problem}" if place else problem)


def read_yaml(path: Path) -> Document:
    """Read a YAML file once; UserError if it is missing, over `YAML_BYTES`, or refused by `parse_yaml`."""
    lines: dict[str, int] = {}
    text = read_text(existing(path, "file"), YAML_BYTES)
    try:
        content = parse_yaml(text, lines)
    except ValueError as error:
        raise UserError(f"{path}: not a YAML file ({error})") from None
    return Document({} if content is None else content, str(path), lines)


class Leaf(NamedTuple):
    """One setting: type, default or `dataclasses.MISSING`, the dataclass that declares it, and its effects."""

    hint: Any
    default: Any
    owner: type
    affects: frozenset[str]


class _MismatchError(Exception):
    """A value is of another type."""


def load(path: Path, kind: type[T]) -> T:
    """Read a YAML file as a dataclass; UserError as `read_yaml` and `from_document`."""
    return from_document(kind, read_yaml(path))


def from_document(kind: type[T], document: Document, prefix: str = "") -> T:
    """Build a dataclass, also of dataclasses; keys left out, or null, take their defaults.

    `prefix` are the keys that lead to it (`splits.train.`). UserError: an unknown or missing key, or a wrong value.
    """
    known = leaves(kind, prefix)
    values = read_values(document, known, prefix)
    for item in fields(kind):  # type: ignore[arg-type]
        if _default(item) is MISSING and document.content.get(item.name) is None:
            document.refuse(prefix[:-1], f"the key {prefix}{item.name} is missing")
    try:
        return build(kind, {key: leaf.default for key, leaf in known.items()} | values, prefix)
    except UserError as error:
        document.refuse(prefix[:-1], f"{prefix}{error}")


def read_values(document: Document, known: Mapping[str, Leaf], prefix: str = "") -> dict[str, Any]:
    """Read a document as `{"clip.stride": 2}`, without nulls, each value of the type of its dotted key in `known`."""
    if not isinstance(document.content, Mapping):
        name = prefix[:-1] or "the top level"
        document.refuse(prefix[:-1], f"{name} is {document.content!r}; allowed: a section, names with a value each")
    values: dict[str, Any] = {}
    sections = {key[:place] for key in known for place, letter in enumerate(key) if letter == "."}
    for name, value in document.content.items():
        key = f"{prefix}{name}"
        if "." in name:
            document.refuse(key, f"the key {key!r} has a dot; allowed: a section, as in clip: {{stride: 2}}")
        if value is None and (key in known or key in sections):
            continue
        if key in known:
            values[key] = convert(value, known[key].hint, key, document)
        elif key in sections:
            values |= read_values(replace(document, content=value), known, f"{key}.")
        elif key in RETIRED:
            if value != RETIRED[key]:
                _log.warning("%s: %s has no effect any more", document.file, key)
        else:
            document.refuse(key, f"unknown key {key!r}; {nearest_key(key, [*known, *sorted(sections)])}")
    return values


def leaves(kind: type, prefix: str = "", defaults: object = None, affects: Any = frozenset()) -> dict[str, Leaf]:
    """List the settings of a nested dataclass by dotted key, with `defaults` and effects of a section."""
    found: dict[str, Leaf] = {}
    hints = get_type_hints(kind)
    for item in fields(kind):
        key, hint, default = f"{prefix}{item.name}", hints[item.name], getattr(defaults, item.name, _default(item))
        effects = item.metadata.get("affects", affects)
        if is_dataclass(hint):
            found |= leaves(hint, f"{key}.", default, effects)  # type: ignore[arg-type]
        else:
            found[key] = Leaf(hint, default, kind, effects)
    return found


def build(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a nested dataclass from all its values by dotted key."""
    hints = get_type_hints(kind)
    arguments = {
        item.name: build(hints[item.name], values, f"{key}.") if is_dataclass(hints[item.name]) else values[key]
        for item in fields(kind)  # type: ignore[arg-type]
        for key in [f"{prefix}{item.name}"]
    }
    return kind(**arguments)


def convert(value: Any, hint: Any, key: str, document: Document) -> Any:
    """Check a value against a type; UserError if it differs. Numbers are valid texts, and a text a list of one."""
    try:
        return _converted(value, hint, key, document)
    except _MismatchError:
        document.refuse(key, f"{key} is {value!r}; allowed: {describe(hint)}")


def _converted(value: Any, hint: Any, key: str, document: Document) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        section = {} if value is None else value
        return from_document(hint, replace(document, content=section), f"{key}.")  # type: ignore[arg-type]
    if origin is Literal and type(value) is type(arguments[0]):  # True is not 1
        if isinstance(value, str) and value not in arguments:
            document.refuse(key, f"{key} is {value!r}; {did_you_mean(value, arguments)}")
        if value in arguments:
            return value
    elif origin in (UnionType, Union):
        for kind in arguments:
            with suppress(_MismatchError):
                return _converted(value, kind, key, document)
    elif origin is dict and isinstance(value, Mapping):
        kind = arguments[1]
        keeps_null = is_dataclass(kind) or NoneType in get_args(kind)
        given = {name: item for name, item in value.items() if item is not None or keeps_null}
        return {name: convert(item, kind, f"{key}.{name}", document) for name, item in given.items()}
    elif origin in (tuple, list):
        return origin(_items([value] if isinstance(value, str) else value, origin, arguments, key, document))
    elif hint in (float, str) and type(value) in (int, float):
        if hint is str or isfinite(value):
            return hint(value)
    elif type(value) is hint and not (hint is int and value.bit_length() > 63):
        return value
    raise _MismatchError


def _items(values: Any, origin: Any, arguments: tuple[Any, ...], key: str, document: Document) -> list[Any]:
    if isinstance(values, list | tuple):
        kinds = arguments if origin is tuple and arguments[-1] is not Ellipsis else arguments[:1] * len(values)
        if len(kinds) == len(values):
            keys = [f"{key}.{number}" if is_dataclass(kind) else key for number, kind in enumerate(kinds)]
            return [_converted(*each, document) for each in zip(values, kinds, keys, strict=True)]
    raise _MismatchError


def parse_text(text: str, hint: Any, key: str) -> Any:
    """Parse a value of the command line: YAML, or plain text if the type is `str` or a `Literal` of words."""
    value: Any = text
    if hint is not str and not (get_origin(hint) is Literal and isinstance(get_args(hint)[0], str)):
        with suppress(ValueError):
            value = parse_yaml(text)
    return convert(value, hint, key, Document(text))


def describe(hint: Any) -> str:
    """Name a type for error messages and `--help`."""
    if get_origin(hint) in (UnionType, Union):
        return " | ".join(map(describe, get_args(hint)))
    if hint is NoneType:
        return "null"
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    return str(hint).removeprefix("typing.") if get_args(hint) else str(hint.__name__)


def dotted(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested sections: `{"clip": {"stride": 2}}` is `{"clip.stride": 2}`."""
    flat: dict[str, Any] = {}
    for name, value in sections.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _default(item: Any) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default
