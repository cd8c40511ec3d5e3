"""Whether an experiment is the one that a file tells of, setting by setting."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

from vidtl.config.dotted import dotted
from vidtl.config.experiment import ExperimentConfig


def settings_of(config: ExperimentConfig) -> dict[str, Any]:
    """Every setting by its dotted key, as YAML and JSON give it back."""
    return dotted(plain(asdict(config)))


def first_difference(
    recorded: Mapping[str, object], config: ExperimentConfig, ignored: Collection[str]
) -> tuple[str, object, object] | None:
    """The first setting that differs, with the recorded value and that of now; `None` where there is none.

    Args:
        recorded: settings by dotted key; one that is missing came into being later, and was what the default is now.
        config: what they are compared with.
        ignored: keys, or whole sections, that may differ.
    """
    before, now = {**settings_of(ExperimentConfig()), **recorded}, settings_of(config)
    sections = {field.name: i for i, field in enumerate(fields(config))}
    for key in sorted(before.keys() | now.keys(), key=lambda key: sections.get(key.split(".")[0], len(sections))):
        absent = "(absent)"
        old, new = before.get(key, absent), now.get(key, absent)
        if old != new and not is_among(key, ignored):
            return key, old, new
    return None


def is_among(key: str, keys: Collection[str]) -> bool:
    """Whether a dotted key, or a section that it lies in, is one of others."""
    return any(key == name or key.startswith(name + ".") for name in keys)


def plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML and JSON give back."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
