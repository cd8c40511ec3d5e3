"""YAML files of a user, read strictly: nothing in them is lost in silence, and none expands without bound."""

from pathlib import Path
from typing import Any

import yaml

from vidtl.errors import UserError


def read_mapping(file: Path) -> dict[str, Any]:
    """The file's top level.

    Raises:
        UserError: it is not YAML or no mapping, or has repeated keys (YAML keeps the last in silence) or aliases (which
            can make a small file expand without bound).
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise UserError(f"{file}: YAML aliases (*name) are not allowed")
        _refuse_repeated_keys(file, yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{file}: names with a value each are needed at the top level")
    return content


def _refuse_repeated_keys(file: Path, node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a list or a section, which YAML's reader refuses with its place
            if key.value in seen:
                raise UserError(f"{file}:{key.start_mark.line + 1}: the key {key.value!r} is there twice")
            seen.add(key.value)
            _refuse_repeated_keys(file, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(file, item)
