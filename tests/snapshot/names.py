"""Translation of recorded names by `docs/renames.csv`, and comparison of recorded with collected values.

Rows of kind `key` name a dotted key, rows of kind `value` are `key=value`, rows of kind `file` are paths; an empty new
name means that it was removed.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tests.environment import REPOSITORY

Settings = Mapping[str, Any]
"""Values by dotted key, under the names of the record."""

REMOVED = {"mAP_micro", "classes_without_positives", "mini_vit frozen"}
REMOVED |= {"model.activation"}  # in place of tanh, the exact GELU is the default now
REMOVED |= {"pytorchvideo_10x3", "pytorchvideo_random", "sampling pytorchvideo_random"}
"""Keys of the record that have no present counterpart."""

with (REPOSITORY / "docs/renames.csv").open(newline="", encoding="utf-8") as stream:
    _NAMES = {row["old"]: row["new"] for row in csv.DictReader(stream) if row["kind"] in ("key", "file", "value")}


def section(name: str, **values: Any) -> dict[str, Any]:
    """Return the settings of one section by dotted key."""
    return {f"{name}.{key}": value for key, value in values.items()}


def translated(settings: Settings) -> dict[str, Any]:
    """Translate settings; those that were removed, or belong to another architecture, are left out."""
    architecture = settings.get("model.architecture", "vivit")
    trains = architecture == "vivit" and any(key.startswith("model.") for key in settings)
    found = {"model.activation": "gelu_tanh"} if trains else {}  # the only one of that time
    for key, value in settings.items():
        if key.count(".") > 1 and not key.startswith(f"model.{architecture}."):
            continue
        new = _NAMES.get(f"{key}={_text(value)}", _NAMES.get(key, key))
        name, _, text = new.partition("=")
        if name:
            found[name] = value if not text else text if isinstance(value, str) else json.loads(text)
    return found


def options(settings: Settings) -> list[str]:
    """Write settings as command-line options."""
    return [text for key, value in translated(settings).items() for text in (f"--{key}", _text(value))]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def differences(recorded: Any, collected: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Yield a line for each recorded value that is lost or changed; floats may differ by `tolerance`."""
    if isinstance(recorded, dict) and isinstance(collected, dict):
        for key, value in ((key, value) for key, value in recorded.items() if key not in REMOVED):
            yield from differences(value, collected.get(key, "lost"), tolerance, f"{place}[{key}]")
    elif isinstance(recorded, list) and isinstance(collected, list) and len(recorded) == len(collected):
        for number, (old, new) in enumerate(zip(recorded, collected, strict=True)):
            yield from differences(old, new, tolerance, f"{place}[{number}]")
    elif isinstance(recorded, float) and isinstance(collected, float):
        if not math.isclose(recorded, collected, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{place} is {collected!r}; it was {recorded!r}"
    elif type(recorded) is not type(collected) or recorded != collected:
        yield f"{place} is {collected!r}; it was {recorded!r}"
