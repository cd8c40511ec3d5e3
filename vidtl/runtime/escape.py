"""Untrusted names and paths in terminals, one-line messages and figures.

Control characters could move a cursor or break a line, bidi overrides reverse a name, and lone surrogates cannot be
encoded. CSV and JSON files hold names as they are, with lone surrogates as escapes (`vidtl.runtime.files.whole_file`).
"""

import unicodedata

JOINERS = "\u200c\u200d"
"""Format characters of Persian, the Indic scripts and emoji, which change no order."""


def printable(text: str, length: int = 0) -> str:
    """Write control, format and surrogate characters as Python's escapes (`\\x1b`, `\\n`, `\\u202e`).

    Args:
        text: any text.
        length: most characters of the result, above 0; the middle of a longer text is left out.
    """
    shown = "".join(map(_escaped, text))
    if 0 < length < len(shown):
        head = length * 2 // 3
        shown = f"{shown[:head].rstrip()}…{shown[head + 1 - length :].lstrip()}"
    return shown


def _escaped(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Cf", "Zl", "Zp") and character not in JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
