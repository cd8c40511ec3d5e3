"""Names of settings when the snapshot was recorded, and what `docs/renames.csv` says they are called now.

Rows of kind `key` name a dotted key, or a section with all that is in it; rows of kind `value` are `key=value`; rows of
kind `file` are paths of configurations and tools. An empty new name means that there is no such thing any more.
"""

import csv
import json
from collections.abc import Mapping
from typing import Any

from tests.environment import REPOSITORY

Settings = Mapping[str, Any]
"""Values by dotted key."""


def section(name: str, **values: Any) -> dict[str, Any]:
    """Write the settings of one section by dotted key."""
    return {f"{name}.{key}": value for key, value in values.items()}


def text_of(value: object) -> str:
    """Write a value as options and `docs/renames.csv` have it: words as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


class Renames:
    """What has got another name, or none, since the snapshot was recorded."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self._names = {row["old"]: row["new"] for row in rows if row["kind"] in ("key", "file")}
        self._values = {row["old"]: row["new"] for row in rows if row["kind"] == "value"}

    def name(self, old: str) -> str:
        """Translate a key or a path; empty where it was removed."""
        parts = old.split(".")
        for end in range(len(parts), 0, -1):
            section, rest = ".".join(parts[:end]), parts[end:]
            if section in self._names:
                new = self._names[section]
                return ".".join([new, *rest]) if new else ""
        return old

    def setting(self, key: str, value: Any) -> tuple[str, Any]:
        """Translate a key with its value; the key is empty where either was removed."""
        written = f"{key}={text_of(value)}"
        if written in self._values:
            key, _, new = self._values[written].partition("=")
            value = new if isinstance(value, str) else json.loads(new or "null")
        return (self.name(key) if key else ""), value

    def settings(self, old: Settings) -> dict[str, Any]:
        """Translate all settings, and leave out those that were removed."""
        translated = [self.setting(key, value) for key, value in old.items()]
        return {key: value for key, value in translated if key}

    def removed(self, old: Settings) -> bool:
        """Tell whether any of these settings was removed, and with it what they ask for."""
        return len(self.settings(old)) < len(old)

    def options(self, old: Settings) -> list[str]:
        """Write settings as options of a command line, by the names of now."""
        return [text for key, value in self.settings(old).items() for text in (f"--{key}", text_of(value))]


def read_renames() -> Renames:
    """Read `docs/renames.csv`, where there is one."""
    file = REPOSITORY / "docs/renames.csv"
    if not file.is_file():
        return Renames([])
    with file.open(newline="", encoding="utf-8") as stream:
        return Renames(list(csv.DictReader(stream)))


RENAMES = read_renames()
