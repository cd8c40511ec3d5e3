"""Whether all that was recorded is still so; what came in addition is no difference."""

import math
from collections.abc import Iterator
from typing import Any

from tests.snapshot.renames import RENAMES

REMOVED = "removed by docs/renames.csv"
"""Collected in the place of what was removed on purpose; differs from nothing."""


def differences(recorded: Any, collected: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Name each recorded value that is lost or changed, in order; floating-point numbers may differ by `tolerance`."""
    if collected == REMOVED:
        return
    if isinstance(recorded, dict) and isinstance(collected, dict):
        for key, value in recorded.items():
            if key in collected:
                yield from differences(value, collected[key], tolerance, f"{place}[{key}]")
            else:
                yield f"{place}[{key}] is lost; it was {value!r}"
    elif isinstance(recorded, list) and isinstance(collected, list) and len(recorded) == len(collected):
        for number, (old, new) in enumerate(zip(recorded, collected, strict=True)):
            yield from differences(old, new, tolerance, f"{place}[{number}]")
    elif not _same(recorded, collected, tolerance):
        yield f"{place} is {collected!r}; it was {recorded!r}"


def _same(recorded: object, collected: object, tolerance: float) -> bool:
    if isinstance(recorded, float) and isinstance(collected, float):
        return math.isclose(recorded, collected, rel_tol=tolerance, abs_tol=tolerance)
    return type(recorded) is type(collected) and recorded == collected


def compact_configs(configs: dict[str, Any]) -> dict[str, Any]:
    """Keep of each configuration what differs from the defaults."""
    defaults = configs["defaults"]
    changed = {
        name: {key: value for key, value in settings.items() if defaults[key] != value}
        for name, settings in configs.items()
        if settings != REMOVED
    }
    return {**changed, "defaults": defaults}


def expand_configs(recorded: dict[str, Any]) -> dict[str, Any]:
    """Give each recorded configuration all its settings again, under the names of now."""
    return {
        RENAMES.name(name): RENAMES.settings({**recorded["defaults"], **changed})
        for name, changed in recorded.items()
        if RENAMES.name(name)
    }
