"""Compare models on one split by their predictions: top-1, mean class accuracy, and the differences from the first.

    python -m benchmarks.differences "own=A/predictions.csv,B/predictions.csv" "elastic=..." --output differences.csv

A name has one file of each seed, whose values are averaged. Intervals of 95 % draw whole video files 2,000 times, since
the clips of a recording are alike. Axes: R seeds, N readable clips of one label, G video files, K classes.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidtl.errors import UserError
from vidtl.evaluation.predictions import FILE_NAME
from vidtl.runtime.files import say, whole_file
from vidtl.runtime.seeding import generator
from vidtl.runtime.signals import run_tool

DRAWS = 2000


class Answers(NamedTuple):
    """Right answers [R, N], and class and file of each clip [N]."""

    right: NDArray[np.bool_]
    classes: list[str]
    files: list[str]

    def values(self, counts_DG: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute top-1 and mean class accuracy, [2, D], for D draws with these counts of each file."""
        places = {name: i for i, name in enumerate(dict.fromkeys(self.files))}
        weights_DN = counts_DG[:, [places[name] for name in self.files]]
        of_class_NK = np.array(self.classes)[:, None] == np.unique(self.classes)
        all_DK, right_DK = weights_DN @ of_class_NK, (weights_DN * self.right.mean(axis=0)) @ of_class_NK
        with np.errstate(invalid="ignore"):  # a draw without clips of a class
            return np.stack([right_DK.sum(axis=1) / all_DK.sum(axis=1), np.nanmean(right_DK / all_DK, axis=1)])


def scored_rows(file: Path) -> list[dict[str, str]]:
    """Read the rows of readable clips from predictions.csv."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["status"] == "scored"]


def read_answers(files: list[Path]) -> Answers:
    """Read one model; UserError for files of other clips than the first."""
    right, known = [], None
    for file in files:
        rows = scored_rows(file)
        clips = [(row["id"], row["true_labels"], row["path"]) for row in rows]
        if clips != (known := known or clips):
            raise UserError(f"{file} has other clips than {files[0]}; allowed: {FILE_NAME} of one split")
        right.append([row["top_1"] == row["true_labels"] for row in rows])
    _, classes, paths = zip(*clips, strict=True)
    return Answers(np.array(right), [*classes], [*paths])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE,FILE,...")
    parser.add_argument("--output", type=Path, required=True, help="CSV file")
    options = parser.parse_args()
    named = (text.rpartition("=")[::2] for text in options.models)
    models = {name: read_answers([Path(file) for file in files.split(",")]) for name, files in named}
    num_files, rng = len(set(next(iter(models.values())).files)), generator(0)
    drawn_DG = rng.multinomial(num_files, [1 / num_files] * num_files, DRAWS)
    counts_DG = np.vstack([np.ones(num_files, np.int64), drawn_DG])
    values = {name: 100 * model.values(counts_DG) for name, model in models.items()}
    first, rows = next(iter(values.values())), []
    for name, of_model in values.items():
        for metric, drawn, base in zip(("top1", "mean_class_accuracy"), of_model, first, strict=True):
            limits = [*np.percentile(drawn, [2.5, 97.5]), *np.percentile(drawn - base, [2.5, 97.5])]
            figures = [drawn[0], *limits[:2], drawn[0] - base[0], *limits[2:]]
            rows.append([name, len(models[name].right), metric, *(f"{figure:.2f}" for figure in figures)])
    header = ["model", "seeds", "metric", "value", "low", "high", "difference", "difference_low", "difference_high"]
    with whole_file(options.output) as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    say(*("".join(f"{cell!s:<20}" for cell in row) for row in [header, *rows]))


if __name__ == "__main__":
    run_tool(main)
