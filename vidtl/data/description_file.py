"""Strict reader of a small YAML file: keys are requested by name and type, and all others are errors."""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vidtl.config.yaml_file import read_mapping
from vidtl.data.layout import existing
from vidtl.errors import UserError, did_you_mean

SIZE_LIMIT = 64 * 1024


class Section:
    """One mapping of the file. Call `refuse_other_keys` after the last request."""

    def __init__(self, file: Path, prefix: str, content: dict[str, Any]) -> None:
        self.file = file
        self.prefix = prefix
        """Dotted keys that lead here, for messages: `splits.train.`"""
        self._content = content
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text, or a number as one; required unless there is a default."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise self._error(key, value, "a text")
        return str(value)

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Return a text or a list of texts as a tuple."""
        value = self._value(key, default)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(each, str) and each for each in values):
            raise self._error(key, value, "a text or a list of texts")
        if not values and default is None:
            raise self._error(key, value, "at least one text")
        return tuple(values)

    def positive(self, key: str) -> float | None:
        """Return a number above 0, or None if absent."""
        value = self._value(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            if key not in self:
                return None
            raise self._error(key, value, "a number above 0")
        return float(value)

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """Return one of the allowed texts."""
        value = self.text(key)
        if value not in allowed:
            raise UserError(f"{self.file}: {self.prefix}{key} is {value!r}; {did_you_mean(value, allowed)}")
        return value

    def range_of_shares(self, key: str) -> tuple[float, float]:
        """Return two rising numbers from 0 to 1; `[0, 1]` if absent."""
        value = self._value(key, [0, 1])
        numbers = isinstance(value, list) and all(type(each) in (int, float) for each in value)
        if not numbers or len(value) != 2 or not 0 <= value[0] < value[1] <= 1:
            raise self._error(key, value, "two rising shares such as [0, 0.8]")
        return float(value[0]), float(value[1])

    def sections(self, key: str) -> dict[str, "Section"]:
        """Return a mapping of at least one name to mappings."""
        content = self._mapping(key, self._value(key, None))
        if not content:
            raise self._error(key, content, "at least one entry")
        prefix = f"{self.prefix}{key}."
        return {
            name: Section(self.file, f"{prefix}{name}.", self._mapping(f"{key}.{name}", value))
            for name, value in content.items()
        }

    def texts_by_name(self, key: str, allowed: Sequence[str] | None = None) -> dict[str, str]:
        """Return a mapping of names (of `allowed`, if given) to texts; may be absent."""
        return {name: section.text(name) for name, section in self._entries(key, allowed)}

    def counts_by_name(self, key: str, allowed: Sequence[str]) -> dict[str, int]:
        """Return a mapping of names of `allowed` to integers of 0 or more; may be absent."""
        return {name: section._count(name) for name, section in self._entries(key, allowed)}

    def refuse_other_keys(self) -> None:
        """Raise a UserError for the first key that was not requested."""
        self._check_names(self._content, self._asked)

    def _entries(self, key: str, allowed: Sequence[str] | None) -> list[tuple[str, "Section"]]:
        content = self._mapping(key, self._value(key, {}))
        section = Section(self.file, f"{self.prefix}{key}.", content)
        if allowed is not None:
            section._check_names(content, allowed)
        return [(name, section) for name in content]

    def _check_names(self, names: dict[str, Any], allowed: Sequence[str]) -> None:
        for name in names:
            if name not in allowed:
                hint = did_you_mean(name, allowed)
                raise UserError(f"{self.file}: unknown key {self.prefix}{name}; {hint}")

    def _count(self, key: str) -> int:
        value = self._content[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._error(key, value, "a whole number of 0 or more")
        return value

    def _value(self, key: str, default: Any) -> Any:
        self._asked.append(key)
        if key not in self._content and default is None:
            near = get_close_matches(key, self._content, n=1)
            hint = f"; is {near[0]!r} meant for it?" if near else ""
            raise UserError(f"{self.file}: the key {self.prefix}{key} is missing{hint}")
        return self._content.get(key, default)

    def _mapping(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self._error(key, value, "names with a value each")
        return value

    def _error(self, key: str, value: Any, needed: str) -> UserError:
        return UserError(f"{self.file}: {self.prefix}{key} is {value!r}; {needed} is needed")


def read_section(file: Path) -> Section:
    """Read the top level of the file.

    Raises:
        UserError: it is missing or larger than `SIZE_LIMIT`, or as `read_mapping`.
    """
    if existing(file, "data set description").stat().st_size > SIZE_LIMIT:
        raise UserError(f"{file}: {file.stat().st_size} bytes; a description has at most {SIZE_LIMIT}")
    return Section(file, "", read_mapping(file))
