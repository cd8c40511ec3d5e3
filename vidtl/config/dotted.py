"""Nested sections of a configuration as dotted keys, the way they are told and compared."""

from collections.abc import Mapping
from typing import Any


def dotted(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"clip": {"stride": 2}}` as `{"clip.stride": 2}`."""
    flat: dict[str, Any] = {}
    for name, value in sections.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
