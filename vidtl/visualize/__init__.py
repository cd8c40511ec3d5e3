"""PNG figures, drawn with matplotlib's object interface and the Agg canvas: no display, no global state."""

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers; black and yellow left out, yellow is faint on white.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of that many inches, at 120 dots per inch, whose parts make room for their labels."""
    figure = Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; readers of `path` see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def label_text(text: str, length: int = 36) -> str:
    """A name as matplotlib can show it: one line, no formulas from dollar signs, the middle of a long one left out."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    if len(printable) > length:
        printable = f"{printable[: length * 2 // 3].rstrip()}…{printable[-(length - length * 2 // 3 - 1) :].lstrip()}"
    return printable.replace("$", r"\$")
