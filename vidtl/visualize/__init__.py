"""Figures, drawn with matplotlib's object interface and the Agg canvas: no display, no global state."""

from contextlib import suppress
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageFont

from vidtl.runtime.files import printable, replacing

# Okabe and Ito's palette for color-blind readers; black and yellow left out, yellow is faint on white.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
_BUNDLED = Path(matplotlib.get_data_path())
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def new_figure(width_in: float, height_in: float, dpi: int = 120) -> Figure:
    """Make an empty figure with a layout that leaves room for labels."""
    figure = Figure(figsize=(width_in, height_in), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bare(axes: Axes) -> Axes:
    """Remove the upper and right frame, and draw a faint grid."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole, in the format of the suffix; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in figure.axes:  # labels of ticks exist once they are asked for
        axes.get_xticklabels(), axes.get_yticklabels()
    for text in figure.findobj(Text):
        if not text.get_text().isascii():
            text.set_fontfamily([*dict.fromkeys(filter(None, map(_family, text.get_text())))])
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


def label_text(text: str, length: int = 36) -> str:
    """Shorten a name to one line without formulas of matplotlib; characters of no installed font become escapes."""
    shown = "".join(each if _family(each) else _escape(each) for each in printable(text))
    return printable(shown, length).replace("$", r"\$")


def label_font(text: str, size_px: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Load the font for a text in Pillow, which draws with one; characters that it lacks become escapes in the text."""
    family = next((each for each in map(_family, text) if each not in ("", "DejaVu Sans")), "DejaVu Sans")
    file, characters = _fonts()[family]
    shown = "".join(each if ord(each) in characters else _escape(each) for each in text)
    return shown, _load(file, size_px)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if not character.isascii() else character


_load = cache(ImageFont.truetype)


@cache
def _family(character: str) -> str:
    """Return the first font family with a character, of DejaVu, which is part of matplotlib, and those installed."""
    if character.isascii():
        return "DejaVu Sans"
    return next((family for family, (_, characters) in _fonts().items() if ord(character) in characters), "")


@cache
def _fonts() -> dict[str, tuple[str, frozenset[int]]]:
    """List file and characters of each font family, DejaVu's first; without those that draw boxes or only in color."""
    fonts = {"DejaVu Sans": str(_BUNDLED / "fonts/ttf/DejaVuSans.ttf")}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        is_for_text = not Path(entry.fname).is_relative_to(_BUNDLED) and "LastResort" not in entry.fname
        if is_for_text and entry.style == "normal" and "Color" not in entry.name:
            fonts.setdefault(entry.name, entry.fname)
    return {family: (file, _characters(file)) for family, file in fonts.items()}


def _characters(file: str) -> frozenset[int]:
    """Read the characters of which a font has outlines."""
    with suppress(RuntimeError, OSError):
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    return frozenset()
