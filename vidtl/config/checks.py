"""Effects of settings, and checks of values."""

from collections.abc import Callable, Sequence
from dataclasses import field
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vidtl.errors import UserError, did_you_mean

T = TypeVar("T")

Effect = Literal["training", "scores", "rounding", "selection", "speed", "operation"]
"""Effect of a setting.

training: samples, their order or the update rule; equal when a run resumes.
scores: scores that a given model gets; equal when evaluation results are reused.
rounding: last digits of these scores; equal when a half-finished evaluation continues.
selection: which step of a run is the best or the last; equal within a study, like training and scores.
speed: time and memory only.
operation: output, checkpoints, and the response to broken videos, steps and processes.
"""


def setting(default: T, *effects: Effect) -> T:
    """Declare a field with its default and its effects."""
    return field(default=default, metadata=affects(*effects))  # type: ignore[no-any-return]


def affects(*effects: Effect) -> dict[str, frozenset[str]]:
    """Return the metadata of a field, or of a section for all of its fields."""
    return {"affects": frozenset(effects)}


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise a `UserError` with key, value and allowed values unless `condition` holds."""
    if not condition:
        raise UserError(f"{key} is {value!r}; allowed: {allowed}")


def require_each(section: object, key: str, names: str, holds: Callable[[Any], bool], allowed: str) -> None:
    """Apply `require` to the fields `names`, separated by spaces, of the section `key`."""
    for name in names.split():
        value = getattr(section, name)
        require(holds(value), f"{key}.{name}", value, allowed)


def require_choices(section: object, key: str) -> None:
    """Apply `require_choice` to all fields with a `Literal` type of the section `key`."""
    for name, hint in get_type_hints(type(section)).items():
        value, allowed = getattr(section, name), choices_of(hint)
        if allowed and not (value is None and NoneType in get_args(hint)):
            require_choice(f"{key}.{name}", value, allowed)


def choices_of(hint: Any) -> tuple[Any, ...]:
    """Return the values of a `Literal` or `Literal | None`; empty for any other type."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def require_choice(key: str, value: object, allowed: Sequence[object]) -> None:
    """Raise a `UserError` with the nearest allowed word, or all allowed numbers, unless `value` is allowed."""
    if value in allowed:
        return
    are_words = all(isinstance(item, str) for item in (value, *allowed))
    hint = did_you_mean(str(value), map(str, allowed)) if are_words else f"allowed: {', '.join(map(str, allowed))}"
    raise UserError(f"{key} is {value!r}; {hint}")
