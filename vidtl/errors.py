"""The exception for mistakes of a user, and the search for the nearest valid name."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import normalize


class UserError(ValueError):
    """A mistake in the user's input: one line that names the place, the value received and what is allowed.

    Tools print the message without a traceback and exit with code 2.
    """


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """End an error message about an unknown `name`: the nearest allowed name, or all of them if none is near."""
    names = list(allowed)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5) if len(name) <= 200 else []  # in quadratic time
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"allowed: {shown}"


def spelling(name: str) -> str:
    """Reduce a name to what its spellings share: no case, spaces, underscores or hyphens, and one form of Unicode."""
    return re.sub(r"[\s_-]+", "", normalize("NFC", name).casefold())
