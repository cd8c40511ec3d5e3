"""A study as a figure: what each variant reaches over what it costs."""

from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path

from vidtl.studies.results import RowResult
from vidtl.visualize import COLORS, label_text, new_figure, save_figure

_STYLES = tuple(product("os^D", COLORS))
"""Marker and colour of each row: every colour once, then again with other markers."""


def draw_study(results: Sequence[RowResult], title: str, metric: str, path: Path) -> None:
    """Draw the mean of each row over its multiply-adds as a PNG, with a small dot for each seed.

    Published values are hollow, in the colour and shape of their row.
    """
    figure = new_figure(7.5, 4.8)
    axes = figure.subplots()
    for result, (marker, colour) in zip(results, cycle(_STYLES), strict=False):
        giga = result.cost.multiply_adds / 1e9
        label = f"{label_text(result.row.name)} ({len(result.values)})"
        if result.mean is not None:
            axes.plot(giga, 100 * result.mean, marker, color=colour, label=label)
            seeds = [100 * value for value in result.values.values()]
            axes.plot([giga] * len(seeds), seeds, ".-", color=colour, markersize=4, linewidth=0.8, alpha=0.6)
        if result.row.published is not None:
            told = None if result.values else label
            axes.plot(giga, 100 * result.row.published, marker, markerfacecolor="none", color=colour, label=told)
    axes.set_title(label_text(title, 80))
    axes.set_xlabel("multiply-adds of a forward pass, billions")
    axes.set_ylabel(f"{metric}, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if any(result.row.published is not None for result in results):
        axes.plot([], [], "o", markerfacecolor="none", color="grey", label="published")
    if any(result.values or result.row.published is not None for result in results):
        axes.legend(fontsize="small", title="variant (number of seeds)", title_fontsize="small")
    save_figure(figure, path)
