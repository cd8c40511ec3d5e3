"""YAML files as mappings with the line of each key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vidtl.errors import UserError, did_you_mean

SIZE_LIMIT = 1_000_000
"""Bytes; a configuration is never larger."""


@dataclass(frozen=True)
class Document:
    """A mapping and where it comes from."""

    content: Any
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Line of each dotted key."""

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Raise a UserError that begins with the file and the line of `key`."""
        place = ":".join(str(part) for part in (self.file, self.lines.get(key)) if part)
        raise UserError(f"{place}: {problem}" if place else problem)


def read_yaml(path: Path) -> Document:
    """Read a YAML file once.

    Raises:
        UserError: the file is missing, larger than `SIZE_LIMIT` or not YAML, repeats a key (YAML would keep the last
            silently) or has an alias (which can expand without bound).
    """
    if not path.is_file():
        neighbors = sorted(each.name for each in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(f"file {str(path)!r} does not exist; {did_you_mean(path.name, neighbors)}")
    if path.stat().st_size > SIZE_LIMIT:
        raise UserError(f"file {str(path)!r} has {path.stat().st_size} bytes; allowed: {SIZE_LIMIT}")
    lines: dict[str, int] = {}
    try:
        content = parse_yaml(path.read_text(encoding="utf-8-sig"), lines)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    return Document(content, str(path), lines)


def parse_yaml(text: str, lines: dict[str, int] | None = None) -> Any:
    """Parse one YAML document strictly; `lines` receives the line of each dotted key."""
    loader = _Loader(text)
    node = loader.get_single_node()
    return None if node is None else loader.value(node, "", {} if lines is None else lines)


class _Loader(yaml.SafeLoader):
    """Refuses aliases and repeated keys; takes `1e-3` as a number, as YAML 1.2 does."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def value(self, node: yaml.Node, key: str, lines: dict[str, int]) -> Any:
        if key:
            lines.setdefault(key, node.start_mark.line + 1)
        prefix = f"{key}." if key else ""
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{prefix}{number}", lines) for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.construct_object(node)
        section: dict[str, Any] = {}
        for name, item in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.value in section:
                problem = "the key {} is there twice" if isinstance(name, yaml.ScalarNode) else "{} is no key"
                raise yaml.MarkedYAMLError(problem=problem.format(repr(name.value)), problem_mark=name.start_mark)
            lines[f"{prefix}{name.value}"] = name.start_mark.line + 1
            section[name.value] = self.value(item, f"{prefix}{name.value}", lines)
        return section


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)
