"""Names as a page may show them. They come from strangers' annotation files."""

import unicodedata

JOINERS = "\u200c\u200d"
"""Format characters that Persian, the Indic scripts and emoji are written with; they turn nothing round."""

MAX_LENGTH = 300
"""Characters shown of one name; the other files of the evaluation hold it whole."""


def visible(text: str) -> str:
    """Text whose control characters, line separators, bidi overrides, tags and lone surrogates are written as escapes.

    What turns reading order round or hides letters is thereby seen, as in `video\\u202e4pm.exe`. The middle of a text
    longer than `MAX_LENGTH` is left out.
    """
    if len(text) > MAX_LENGTH:
        text = f"{text[: MAX_LENGTH * 2 // 3]} … {text[-MAX_LENGTH // 3 :]}"
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Cf", "Zl", "Zp") and character not in JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
