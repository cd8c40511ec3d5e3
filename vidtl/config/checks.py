"""Checks that one section alone can fail."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vidtl.errors import UserError, did_you_mean


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Unless `condition` holds, raise a `UserError` that names the dotted key, the value and what is allowed."""
    if not condition:
        raise UserError(f"{key} is {value!r}; allowed: {allowed}")


def require_choices(section: object, key: str) -> None:
    """Raise a `UserError` for a setting that is none of the few values it may have; `key` is the section's."""
    for name, hint in get_type_hints(type(section)).items():
        value, allowed = getattr(section, name), choices_of(hint)
        if allowed and not (value is None and NoneType in get_args(hint)):
            require_choice(f"{key}.{name}", value, allowed)


def choices_of(hint: Any) -> tuple[Any, ...]:
    """Return the values of a `Literal`, also of one that may be null; empty for any other type."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def require_choice(key: str, value: object, allowed: Sequence[object]) -> None:
    """Unless `value` is one of those allowed, raise a `UserError` that tells the nearest word or, of numbers, all."""
    if value in allowed:
        return
    are_words = all(isinstance(item, str) for item in (value, *allowed))
    told = did_you_mean(str(value), map(str, allowed)) if are_words else f"allowed: {', '.join(map(str, allowed))}"
    raise UserError(f"{key} is {value!r}; {told}")
