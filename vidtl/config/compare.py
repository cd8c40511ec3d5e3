"""Comparison of an experiment with a recorded one in the settings with some effects (`vidtl.config.checks.Effect`)."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from vidtl.config.checks import Effect
from vidtl.config.experiment import ExperimentConfig
from vidtl.config.load import EARLIER, RETIRED, dotted, leaves

EFFECTS = {key: leaf.affects or frozenset(get_args(Effect)) for key, leaf in leaves(ExperimentConfig).items()}
"""Effects of each setting by dotted key; all of them where none is named."""

PATHS = ("data.dataset", "data.root", "data.manifest", "training.init_from")


def resolved(key: str, value: Any) -> Any:
    """Return the absolute form of a setting that is an existing path, without links; any other value as it is."""
    is_path = key in PATHS and isinstance(value, str) and value and Path(value).exists()
    return str(Path(value).resolve()) if is_path else value


def settings_of(config: ExperimentConfig, affecting: Collection[Effect] = get_args(Effect)) -> dict[str, Any]:
    """List the settings that have one of these effects by dotted key, with values as YAML and JSON give them back."""
    settings = dotted(plain(asdict(config)))
    return {key: value for key, value in settings.items() if not EFFECTS[key].isdisjoint(affecting)}


def differences(
    recorded: Mapping[str, object], config: ExperimentConfig, affecting: Collection[Effect]
) -> list[tuple[str, object, object]]:
    """List key, recorded and present value of the settings that differ and have one of these effects.

    A `recorded` setting that is missing, of later versions, counts as the default; one that is gone is a difference.
    """
    absent = "(absent)"
    before, now = {**settings_of(ExperimentConfig()), **recorded}, settings_of(config)
    if recorded.get("model.architecture") == "vivit":
        before |= {key: value for name, value in EARLIER.items() if (key := f"model.{name}") not in recorded}
    return [
        (key, before.get(key, absent), now.get(key, absent))
        for key in [*now, *sorted(before.keys() - now.keys())]
        if RETIRED.get(key, absent) not in (None, before.get(key))
        and resolved(key, before.get(key, absent)) != resolved(key, now.get(key, absent))
        and not EFFECTS.get(key, frozenset(affecting)).isdisjoint(affecting)
    ]


def plain(value: Any) -> Any:
    """Turn tuples into lists, as YAML and JSON give them back."""
    return json.loads(json.dumps(value))
