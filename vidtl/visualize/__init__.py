"""Figures, drawn with matplotlib's object interface and the Agg canvas: no display, no global state."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import ImageFont

from vidtl.runtime.files import printable, replacing

# Okabe and Ito's palette for color-blind readers; black and yellow left out, yellow is faint on white.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
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
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])


def label_text(text: str, length: int = 36) -> str:
    """Shorten a name to one line without formulas of matplotlib."""
    return printable(text, length).replace("$", r"\$")


@lru_cache
def label_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Load DejaVu, which is part of matplotlib and covers most scripts."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size_px)
