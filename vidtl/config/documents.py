"""Parse YAML and JSON of unknown origin: size, nesting and digits of numbers are bounded before anything is built."""

import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from vidtl.errors import UserError

JSON_BYTES, YAML_BYTES = 16_000_000, 1_000_000  # of a file, at most

_MAX_DEPTH, _MAX_DIGITS = 64, 100
_NO_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[^\[\]{}"]++', re.DOTALL)


def read_text(path: Path, max_bytes: int) -> str:
    """Read a regular file of at most `max_bytes` in UTF-8, with or without a byte order mark; UserError for others."""
    try:
        if not path.is_file():
            raise UserError(f"{path} does not exist or is no file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)  # the size that the system states may be wrong
        if len(content) > max_bytes:
            raise UserError(f"{path} has {path.stat().st_size} bytes; allowed: {max_bytes}")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of at most `JSON_BYTES`; UserError for anything else."""
    content = parse_json(read_text(path, JSON_BYTES), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}; allowed: an object")
    return content


def parse_json(text: str | bytes, where: str, **hooks: Callable[[Any], Any]) -> Any:
    """Parse JSON, with `hooks` of `json.loads`; UserError for repeated keys, too many levels or digits."""
    defaults: dict[str, Any] = {"object_pairs_hook": _without_repetition, "parse_int": _integer}
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        levels = accumulate(1 if bracket in "[{" else -1 for bracket in _NO_BRACKETS.sub("", text))
        if max(levels, default=0) > _MAX_DEPTH:
            raise ValueError(f"brackets nest deeper than {_MAX_DEPTH} levels")
        return json.loads(text, **defaults | hooks)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is there twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; allowed: {_MAX_DIGITS}")
    return int(text)


def parse_yaml(text: str, lines: dict[str, int] | None = None) -> Any:
    """Parse one YAML document strictly; `lines` receives the line of each dotted key.

    ValueError: not YAML, a repeated key (YAML would keep the last silently), an alias (which can expand without bound),
    a tag, too many levels or digits.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise _refused("aliases (*name) are not allowed", event)
            if getattr(event, "tag", None):
                raise _refused("tags (!name) are not allowed", event)
            if depth > _MAX_DEPTH:
                raise _refused(f"lists and sections nest deeper than {_MAX_DEPTH} levels", event)
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else loader.value(node, "", {} if lines is None else lines)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2 numbers such as `1e-3`, without repeated keys."""

    def value(self, node: yaml.Node, key: str, lines: dict[str, int]) -> Any:
        if key:
            lines.setdefault(key, node.start_mark.line + 1)
        prefix = f"{key}." if key else ""
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{prefix}{number}", lines) for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            if node.tag != "tag:yaml.org,2002:str" and len(node.value) > _MAX_DIGITS:
                raise _refused(f"a number has {len(node.value)} digits; allowed: {_MAX_DIGITS}", node)
            return self.construct_object(node)
        section: dict[str, Any] = {}
        for name, item in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.value in section:
                problem = "the key {} is there twice" if isinstance(name, yaml.ScalarNode) else "{} is no key"
                raise _refused(problem.format(repr(name.value)), name)
            lines[f"{prefix}{name.value}"] = name.start_mark.line + 1
            section[name.value] = self.value(item, f"{prefix}{name.value}", lines)
        return section


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def _refused(problem: str, place: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)
