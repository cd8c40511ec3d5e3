"""Name patterns of videos, `{id}_{start:06d}.mp4`: their check, and matching of paths."""

import re
from string import Formatter

from vidtl.annotations.layout import check_relative, pattern_fields
from vidtl.config.checks import require
from vidtl.errors import UserError, did_you_mean

ANY_COLUMN = ("*",)
"""Allowed fields of name patterns that may use any column."""


def column_of(field: str) -> str:
    """Return the column of a field of a name pattern: `start` of `{start*10:06d}`."""
    return field.partition("*")[0]


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Convert a name pattern to an expression for the end of a path; `{label}` takes as much as it can, others least.

    Each field is a group, except for `{other}`; a suffix `.*` is any suffix, or none for folders.
    """
    parts: list[str] = []
    for literal, name, _, _ in Formatter().parse(pattern.removesuffix(".*")):
        parts.append(re.escape(literal))
        if name is not None:
            parts.append("[^/]+?" if name == "other" else f"(?P<{name}>[^/]+{'' if name == 'label' else '?'})")
    return re.compile(f"(?:.*/)?{''.join(parts)}" + (r"(?:\.\w+)?" if pattern.endswith(".*") else ""))


def check_patterns(patterns: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Apply the name patterns of a data set once, so that none can fail in the middle of it.

    `allowed` are the fields; none if there may be no patterns, `ANY_COLUMN` if there may be any.
    """
    if allowed != ANY_COLUMN:
        needed = "patterns such as '{id}.mp4'" if allowed else "none with this format, whose annotation has the paths"
        require(bool(patterns) == bool(allowed), "files", list(patterns), needed)
    elif patterns:
        require(
            any("{" in pattern for pattern in patterns), "files", list(patterns), "patterns such as '{id}.mp4', or none"
        )
    for pattern in patterns:
        try:
            fields = pattern_fields(pattern)
            unknown = [] if allowed == ANY_COLUMN else sorted(fields.difference(allowed))
            sample = {name: 0 if name in ("start", "end") or "*" in name else name for name in fields}
            example = pattern if unknown else pattern.format_map(sample)
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"files has {pattern!r}, which is no name pattern ({error})") from None
        if unknown:
            hint = did_you_mean(unknown[0], sorted(allowed))
            raise UserError(f"files has {pattern!r} with the unknown field {unknown[0]!r}; {hint}")
        check_relative(example, "files")
