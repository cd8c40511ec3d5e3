"""PNG figures, drawn with matplotlib's object interface and the Agg canvas: no display, no global state."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidtl.runtime.files import replacing

# Okabe and Ito's palette, told apart by colour-blind readers; black and yellow left out, yellow is faint on white.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of that many inches, at 120 dots per inch, whose parts make room for their labels."""
    figure = Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def whole_picture(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` at the end: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        yield temporary


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whole."""
    with whole_picture(path) as temporary:
        figure.savefig(temporary, format="png")


def plain_text(text: str, length: int) -> str:
    """A name on one line, the middle of a long one left out."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    if len(printable) > length:
        printable = f"{printable[: length * 2 // 3].rstrip()}…{printable[-(length - length * 2 // 3 - 1) :].lstrip()}"
    return printable


def label_text(text: str, length: int = 36) -> str:
    """A name as matplotlib can show it: `plain_text` in which dollar signs make no formulas."""
    return plain_text(text, length).replace("$", r"\$")
