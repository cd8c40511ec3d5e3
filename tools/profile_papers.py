"""The papers' models, counted here beside the published figures."""

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vidtl.benchmark.published import STEP_BATCH, Comparison, compare
from vidtl.models.published import NO_MATCH, published_models
from vidtl.runtime.versions import installed_versions

ALL = "papers"
"""Name of all tables together."""


def compare_papers(console: Console, table: str, step: bool, output: Path | None) -> None:
    """Count, print and write the rows of a table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if step else None
    comparisons = [compare(row, device) for row in published_models(None if table == ALL else table)]
    print_comparisons(console, comparisons)
    if output:
        report = {
            "command": shlex.join(["python", "tools/profile_model.py", *sys.argv[1:]]),
            "date": datetime.now(UTC).date().isoformat(),
            "versions": installed_versions(["torch", "vidtl"]),
            "step": {"seed": 0, "batch": STEP_BATCH, "device": device.type} if device else None,
            "rows": [comparison.as_dict() for comparison in comparisons],
        }
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def print_comparisons(console: Console, comparisons: list[Comparison]) -> None:
    """Ours beside the published figures."""
    stepped = any(comparison.step for comparison in comparisons)
    table = Table(title="Published figures and ours", title_justify="left")
    table.add_column("source")
    table.add_column("model", no_wrap=True)
    headings = ["GMAC", "published", "deviation", "parameters", "published M", "deviation"]
    for heading in [*headings, *(["loss", "gradient norm", "with gradient"] if stepped else [])]:
        table.add_column(heading, justify="right")
    table.add_column("note")
    for each in comparisons:
        cells = [*compared(each), *(step_cells(each) if stepped else [])]
        row = each.row
        table.add_row(row.source, row.name, *cells, row.note, style="red" if NO_MATCH in row.note else "")
    console.print(table)
    console.print(
        "deviation: of the published figure from ours; theirs may count element-wise work, ours leaves it out"
    )
    if stepped:
        console.print(f"one AdamW step on {STEP_BATCH} clips of noise; with gradient: trained tensors that get one")


def compared(comparison: Comparison) -> list[str]:
    """Cells: our count, the published one and its deviation, for multiply-adds and for parameters."""
    gmacs, row = comparison.multiply_adds / 1e9, comparison.row
    cells = [f"{gmacs:.4f}", *deviation(row.gmacs, gmacs)]
    return [*cells, f"{comparison.parameters:,}", *deviation(row.parameters_m, comparison.parameters / 1e6)]


def deviation(published: float | None, ours: float) -> tuple[str, str]:
    """The published figure as printed, and how far it is from ours where its own rounding does not account for that."""
    if published is None:
        return "", ""
    printed = f"{published:.9g}"
    half_a_digit = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    within_rounding = abs(published - ours) <= 1.001 * half_a_digit
    return printed, "rounding" if within_rounding else f"{published / ours - 1:+.1%}"


def step_cells(comparison: Comparison) -> list[str]:
    """Cells: loss, norm of the gradient, and how many of the trained tensors get one."""
    step = comparison.step
    assert step is not None
    told = [f"{step.loss:.3f}", f"{step.gradient_norm:.3f}", f"{step.tensors_with_gradient}/{step.tensors}"]
    return told if step.finite else [*told[:2], "not finite"]
