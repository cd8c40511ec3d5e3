"""Checks that one value alone can fail."""

from vidtl.errors import UserError


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Unless `condition` holds, raise a `UserError` that names the dotted key, the value and what is allowed."""
    if not condition:
        raise UserError(f"{key} is {value!r}; allowed: {allowed}")
