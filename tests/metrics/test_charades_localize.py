"""The official localization rules against golden values and a plain loop over the published algorithm."""

import csv
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from charades_submission import read_annotations

from tests.refusals import refused
from vidtl.metrics.average_precision import Rankings
from vidtl.metrics.charades import scores_of
from vidtl.metrics.charades_localize import point_labels, point_times, read_localization


def score(submission: Path, annotations: Path):
    found = read_annotations(annotations, 157, timed=True)
    scores, remarks = read_localization(submission, found.ids, 157)
    targets = point_labels(point_times(found.lengths_s), found.owners, found.classes, found.spans_s, 157)
    remarks = {remark: count for remark, count in remarks.items() if count}
    return scores_of(Rankings.of(scores, targets, keep_order=True)), remarks, targets


MISSING = "rows are missing, which costs their actions"
UNKNOWN = "lines have unknown ids and are ignored"
OTHERS = "lines have frames other than the 25 points and are ignored"
FROM_ZERO = "lines have frames that count from 0, as the smallest one is 0"


def loops(submission: str, annotations: list[dict[str, str]], num_classes: int) -> list[float]:
    """AP per class by the steps of the official script: dictionaries and ranks by comparison."""
    scored, lines = {}, [line.replace(",", " ").split() for line in submission.splitlines()]
    first = min(int(line[1]) for line in lines) == 0
    for video, frame, *numbers in lines:
        scored[video, int(frame) + first] = [float(number) for number in numbers]
    rows = []
    for row in annotations:
        for point in range(25):
            now, actions = point / 25 * float(row["length"]), map(str.split, filter(None, row["actions"].split(";")))
            active = {int(name[1:]) for name, start, end in actions if float(start) <= now <= float(end)}
            rows.append((active, scored.get((row["id"], point + 1), [-math.inf] * num_classes)))
    result = []
    for k in range(num_classes):
        keys = sorted((math.isnan(scores[k]), 0 if math.isnan(scores[k]) else -scores[k], i, k in active)
                      for i, (active, scores) in enumerate(rows))  # fmt: skip
        hits = [key[-1] for key in keys]
        precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
        result.append(sum(precisions) / len(precisions) if precisions else math.nan)
    return result


@pytest.mark.parametrize("case", ["main", "zero_based"])
def test_golden_cases(golden: Path, tmp_path: Path, case: str) -> None:
    folder = golden / "charades_localize" / case
    (tmp_path / "s.txt").write_bytes(gzip.decompress((folder / "submission.txt.gz").read_bytes()))
    expected = json.loads((folder / "expected.json").read_text())
    official, result, targets = score(tmp_path / "s.txt", folder / "annotations.csv")
    close = {"abs": 1e-12, "rel": 0, "nan_ok": True}
    for name, value in (
        ("map", official.mean_ap),
        ("wap", official.weighted_ap),
        ("map_of_classes_with_positives", np.nanmean(official.average_precisions)),
    ):
        assert value == pytest.approx(math.nan if expected[name] is None else expected[name], **close)
    ap = [math.nan if value is None else value for value in expected["ap"]]
    assert official.average_precisions.tolist() == pytest.approx(ap, **close)
    assert targets.sum(axis=0).tolist() == expected["positives"]
    assert (len(targets), result.get(MISSING, 0)) == (expected["rows"], expected["rows_missing"])
    assert result.get(UNKNOWN, 0) + result.get(OTHERS, 0) == expected["lines_unused"]
    assert (FROM_ZERO in result) == (case == "zero_based")


@pytest.mark.parametrize(("base", "decimals", "separator"), [(1, 9, " "), (0, 0, "\t"), (1, 0, ","), (-1, 1, " , ")])
def test_random_files_against_the_published_steps(tmp_path: Path, base: int, decimals: int, separator: str) -> None:
    """Ties, NaN, infinities, missing rows and videos, equal keys, unknown ids and frames, in random order."""
    rng = np.random.default_rng(decimals + 10 * base + 10)
    table = []
    for i in range(12):
        starts, names = rng.integers(0, 250, 9) / 25, rng.permutation(157)[:9]  # many are points of 10 seconds
        actions = [f"c{k:03d} {s:.2f} {s + d:.2f}" for k, s, d in zip(names, starts, rng.normal(2, 3, 9), strict=True)]
        row = {"actions": ";".join(actions * (i != 3)), "length": ["10", "7.3", "nan", "x"][i % 4], "id": f"V{i % 11}"}
        table.append(row)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["length", "id", "actions"])
        writer.writeheader()
        writer.writerows(table)
    special = ["nan", "NaN", "Inf", "-Inf", "-0", "0", "1e-3"]
    lines = []
    keys = [(f"V{i}", j) for i in range(9) for j in range(25)] + [("V1", 3), ("V2", 4), ("W", 5), ("V1", 30)]
    for video, frame in keys:
        numbers = np.array([f"{x:.{decimals}f}" for x in rng.normal(0, 1, 157)], object)
        numbers[rng.permutation(157)[:7]] = special
        lines.append(f"{video}\t{frame + base} {separator.join(numbers)}\r\n")
    lines = [lines[i] for i in rng.permutation(len(lines))[:-20]]
    (tmp_path / "s.txt").write_text("".join(lines), newline="")
    official, _, targets = score(tmp_path / "s.txt", tmp_path / "a.csv")
    readable = [row | {"length": row["length"].replace("x", "nan")} for row in table]
    expected = np.array(loops("".join(lines), readable, 157))
    np.testing.assert_allclose(official.average_precisions, expected, rtol=0, atol=1e-12)
    assert np.isfinite(expected).sum() > 20
    assert targets.reshape(12, 25, -1).any(axis=(1, 2)).tolist() == [i % 4 < 2 for i in range(12)]


def test_lines_that_are_refused(tmp_path: Path) -> None:
    counts = (("a 2 1", "1 numbers"), ("a 2 1 2 3", "3 numbers"))
    words = (("a 2 1 1-2", "'1-2'"), ("id frame s0 s1", "'frame'"), ("a 2.5 1 2", "'2.5'"), ("b", "''"))
    for line, named in counts + words:
        (tmp_path / "s.txt").write_text(f"a 1 1 2\n{line}\n")
        with refused("s.txt:2", named):
            read_localization(tmp_path / "s.txt", ["a"], 2)
