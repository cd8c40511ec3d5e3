"""Figures, drawn with matplotlib's object interface and the Agg canvas: no display, no global state."""

from contextlib import suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageDraw, ImageFont

from vidtl.runtime.files import printable, replacing

# Okabe and Ito's palette for color-blind readers; black and yellow left out, yellow is faint on white.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
_DEJAVU = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def new_figure(width_in: float, height_in: float) -> Figure:
    """Make an empty figure with a layout that leaves room for labels."""
    figure = Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")
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
    return printable(_drawable(printable(text)), length).replace("$", r"\$")


def draw_label(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: Any, size_px: int) -> float:
    """Draw a line with Pillow from its upper left corner, each part with a font that has it; return the right edge."""
    x, baseline = place[0], place[1] + _load("DejaVu Sans", size_px).getmetrics()[0]
    for family, characters in groupby(_drawable(text), _family):
        part, font = "".join(characters), _load(family, size_px)
        draw.text((x, baseline), part, color, font, anchor="ls")
        x += font.getlength(part)
    return x


def _drawable(text: str) -> str:
    return "".join(each if _family(each) else each.encode("unicode_escape").decode("ascii") for each in text)


@cache
def _family(character: str) -> str:
    """Return the first font family with a character, of DejaVu, which is part of matplotlib, and those installed."""
    if ord(character) in _characters(_DEJAVU):
        return "DejaVu Sans"
    return next((family for family, (_, characters) in _installed().items() if ord(character) in characters), "")


def _load(family: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_DEJAVU if family == "DejaVu Sans" else _installed()[family][0], size_px)


@cache
def _installed() -> dict[str, tuple[str, frozenset[int]]]:
    """List file and characters of each other font family, without those that draw boxes or only in color."""
    fonts: dict[str, tuple[str, frozenset[int]]] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        is_for_text = Path(entry.fname).parent != Path(_DEJAVU).parent and "LastResort" not in entry.fname
        if is_for_text and entry.style == "normal" and entry.weight == 400 and "Color" not in entry.name:
            own = _characters(entry.fname)
            file, characters = fonts.get(entry.name, (entry.fname, own))
            fonts[entry.name] = file, own & characters  # matplotlib takes either file
    return fonts


@cache
def _characters(file: str) -> frozenset[int]:
    with suppress(RuntimeError, OSError):
        font = FT2Font(file)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    return frozenset()
