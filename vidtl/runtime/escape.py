"""Strangers' names and paths, made inert for terminals and CSV cells, with nothing lost.

Control characters could move a cursor or break a row, bidi overrides turn a name round, and lone surrogates cannot be
written: all are shown as Python's escapes (`\\x1b`, `\\n`, `\\u202e`). In CSV cells a backslash is doubled, so that
`original_text` finds the exact text again, and an apostrophe goes before what a spreadsheet would run as a formula.
"""

import re
import unicodedata

JOINERS = "\u200c\u200d"
"""Format characters that Persian, the Indic scripts and emoji are written with; they turn nothing round."""

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")

_ESCAPE = re.compile(r"\\(\\|\||n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def shown_text(text: str) -> str:
    """Text for one line of a terminal."""
    return "".join(map(_shown_character, text))


def cell_text(text: str) -> str:
    """Text for one CSV cell; an apostrophe goes before a start that spreadsheets take for a formula.

    A text that starts with an apostrophe gets a second one, so that taking one away restores any text.
    """
    shown = shown_text(text.replace("\\", "\\\\"))
    return f"'{shown}" if shown.lstrip().startswith(FORMULA_STARTS) else shown


def original_text(cell: str) -> str:
    """The inverse of `cell_text`."""
    return _unescape(_without_apostrophe(cell))


def labels_cell(names: list[str]) -> str:
    """Several names in one CSV cell, with `|` between them; a `|` inside a name is written `\\|`."""
    shown = "|".join(shown_text(name.replace("\\", "\\\\").replace("|", "\\|")) for name in names)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA_STARTS) else shown


def original_labels(cell: str) -> list[str]:
    """The inverse of `labels_cell`."""
    if not cell:
        return []
    return [_unescape(part) for part in re.findall(r"(?:\\.|[^|\\])+", _without_apostrophe(cell))]


def _shown_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Cf", "Zl", "Zp") and character not in JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character


def _without_apostrophe(cell: str) -> str:
    return cell.removeprefix("'")


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: found[1] if found[1] in "\\|" else _character(found[0]), text)


def _character(escape: str) -> str:
    named = {"\\n": "\n", "\\r": "\r", "\\t": "\t"}
    return named[escape] if escape in named else chr(int(escape[2:], 16))
