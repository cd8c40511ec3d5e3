"""Count the models of the papers and compare with the published figures in papers.csv.

    python -m benchmarks.papers                             all tables
    python -m benchmarks.papers t2t_vit --output rows.json

Multiply-adds are those of one view; the sources call billions of them "GFLOPs". Rows with the source `arithmetic`
follow from the shapes of the layers. A note `does not match` marks a published figure that cannot be of its model.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from vidtl.config import ClipConfig, ModelConfig
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds, count_parameters
from vidtl.models.factory import parse_name
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement

NO_MATCH = "does not match: "
PRINTED = ("source", "name", "gmacs", "parameters_m", "note")
"""Fields of a row in the JSON file."""


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A row of papers.csv; `name` is unique within a source. Published figures are of one view, in 1e9 and 1e6."""

    table: str
    source: str
    name: str
    model: ModelConfig
    clip: ClipConfig
    num_classes: int
    gmacs: float | None
    parameters_m: float | None
    note: str


def published_models(table: str = "") -> list[PublishedModel]:
    """Read the rows of one table, or all rows."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        return [_published(row) for row in csv.DictReader(stream) if table in ("", row["table"])]


def _published(row: Mapping[str, str]) -> PublishedModel:
    side = int(row["side"])
    return PublishedModel(
        **{key: row[key] for key in ("table", "source", "name", "note")},
        **{key: float(row[key]) if row[key] else None for key in ("gmacs", "parameters_m")},
        model=_model(row["model"], dict(setting.split("=") for setting in row["settings"].split())),
        clip=ClipConfig(num_frames=int(row["frames"]), frame_size=(side, side), short_side=max(256, side)),
        num_classes=int(row["classes"]),
    )


def _model(name: str, settings: Mapping[str, str]) -> ModelConfig:
    model = parse_name(name)
    for key, value in settings.items():
        section, _, stage_key = key.rpartition(".")
        change = {stage_key: yaml.safe_load(value)}
        model = replace(model, **({section: replace(model.token_learner, **change)} if section else change))
    return model


def count(row: PublishedModel) -> dict[str, int]:
    """Count a model without allocating its weights; `parameters` includes frozen ones, as in the papers."""
    with torch.device("meta"):
        model = build_model(row.model, row.clip, row.num_classes)
    return {
        "multiply_adds": count_multiply_adds(model, row.clip),
        "parameters": count_parameters(model),
        "trainable_parameters": count_parameters(model, trainable_only=True),
    }


def main() -> None:
    tables = sorted({row.table for row in published_models()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", default="", choices=["", *tables], help="default: all tables")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    counted = [(row, count(row)) for row in published_models(options.table)]
    print_comparison(counted)
    if options.output:
        rows = [{name: getattr(row, name) for name in PRINTED} | counts for row, counts in counted]
        report = describe_measurement("-m benchmarks.papers") | {"rows": rows}
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def print_comparison(counted: list[tuple[PublishedModel, dict[str, int]]]) -> None:
    """Print our counts beside the published figures."""
    table = Table("source", title="Published figures and ours", title_justify="left")
    table.add_column("model", no_wrap=True)
    for heading in ("GMAC", "published", "deviation", "parameters", "published M", "deviation"):
        table.add_column(heading, justify="right")
    table.add_column("note")
    for row, counts in counted:
        gmacs = counts["multiply_adds"] / 1e9
        cells = [f"{gmacs:.4f}", *deviation(row.gmacs, gmacs)]
        cells += [f"{counts['parameters']:,}", *deviation(row.parameters_m, counts["parameters"] / 1e6)]
        table.add_row(row.source, row.name, *cells, row.note, style="red" if NO_MATCH in row.note else "")
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(table)
    console.print("GMAC: billions of multiply-adds of one clip's forward pass, without element-wise work")
    console.print("deviation: of the published figure from ours; papers may count element-wise work")


def deviation(published: float | None, ours: float) -> tuple[str, str]:
    """Return the published figure, and its deviation from ours unless rounding explains it."""
    if published is None:
        return "", ""
    printed = f"{published:.9g}"
    half_a_digit = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    within_rounding = abs(published - ours) <= 1.001 * half_a_digit
    return printed, "rounding" if within_rounding else f"{published / ours - 1:+.1%}"


if __name__ == "__main__":
    run_tool(main)
