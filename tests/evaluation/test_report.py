"""The files of a report: readable by strict readers, exact whatever the names are, and whole."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.made_result import made_result
from tests.evaluation.prediction_table import read_predictions
from tests.metrics.made_outcomes import made_outcomes
from vidtl.evaluation import report
from vidtl.evaluation.evaluator import EvaluationResult
from vidtl.evaluation.report import metrics_record
from vidtl.metrics import METRICS, compute_metrics
from vidtl.metrics.intervals import wilson

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font:UserWarning")

HOSTILE = (
    *("=1+1", '@SUM(A1),"quoted"', "-2", "+3|x", "a\r\nb\x00\x1b[31m\u2028\x85", "  =HYPERLINK(1)", "'apostrophe"),
    *("|", "", "$\\frac{, straße, 跑", "no videos"),
)
IDS = [f"{HOSTILE[i % 11]}{i}" for i in range(23)]


def hostile(multi_label: bool, unreadable: tuple[int, ...] = ()) -> EvaluationResult:
    return made_result(23, HOSTILE, multi_label, unreadable, IDS)


def write_report(result: EvaluationResult, folder: Path) -> set[str]:
    return {path.name for path in report.write_report(result, metrics_record(result), folder)}


def read_csv(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, strict=True))


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_json_is_strict_and_accounts_for_every_video(tmp_path, multi_label):
    result = hostile(multi_label, (1, 5))
    write_report(result, tmp_path)
    text = (tmp_path / "metrics.json").read_bytes().decode("ascii")
    record = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert (record["num_annotated"], record["num_scored"], record["num_unreadable"]) == (23, 21, 2)
    for key in ("metrics", "metrics_readable"):
        expected = getattr(result, key)
        assert record[key] == {name: None if math.isnan(value) else value for name, value in expected.items()}
    assert [row["class"] for row in record["per_class"]] == list(HOSTILE)
    assert [row["videos"] for row in record["per_class"]] == result.outcomes.targets.sum(0).tolist()
    values = [row["average_precision" if multi_label else "accuracy"] for row in record["per_class"]]
    mean = np.mean([value for value in values if value is not None])
    assert mean == pytest.approx(record["metrics"]["mAP" if multi_label else "mean_class_accuracy"])
    assert record["classes_without_positives"] == ["no videos"]
    assert [tuple(row.values()) for row in record["unreadable"]] == [tuple(row) for row in result.unreadable]
    assert set(record["chance"]) >= {name for name in record["metrics"] if METRICS[name].chance}
    assert sum(record["calibration"]["counts"]) == 21 * (len(HOSTILE) if multi_label else 1)
    for name, limits in record["intervals"].items():
        assert limits["low"] is None or 0 <= limits["low"] <= record["metrics"][name] <= limits["high"] <= 1


def test_classes_and_confusions_are_counted(tmp_path):
    result = made_result(40, ["a", "b", "c", "d"], unreadable=(0,))
    counts, record = result.outcomes.confusion, metrics_record(result)
    for k, row in enumerate(record["per_class"][:3]):
        assert (row["videos"], row["right"]) == (counts[k].sum(), counts[k, k])
        assert row["interval"] == list(wilson(row["right"], row["videos"])[:2])
        assert (row["taken_for"] or {"videos": 0})["videos"] == np.delete(counts[k], k).max()
    nothing = {"accuracy": None, "right": 0, "interval": None, "taken_for": None}
    assert record["per_class"][3] == {"class": "d", "videos": 0, **nothing}
    assert sum(row["videos"] for row in record["confusions"]) == counts[:, :4].sum() - np.trace(counts)
    multi = metrics_record(made_result(30, ["a", "b", "c", "d"], multi_label=True))
    assert np.mean([row["chance"] for row in multi["per_class"][:3]]) == pytest.approx(multi["chance"]["mAP"])
    write_report(result, tmp_path)
    header, *rows = read_csv(tmp_path / "confusion.csv")
    assert header == ["true class", *(f"predicted: {name}" for name in "abcd"), "unreadable"]
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), counts)


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_can_be_computed_again_from_the_predictions(tmp_path, multi_label):
    result = hostile(multi_label, (1, 5))
    write_report(result, tmp_path)
    header, *rows = read_csv(tmp_path / "predictions.csv")
    assert header[:9] == ["id", "path", "true_labels", "status", "top_1", "top_2", "top_3", "top_4", "top_5"]
    assert [row[3] for row in rows] == ["unreadable" if i in (1, 5) else "scored" for i in range(23)]
    for i, row in enumerate(rows):
        best = np.argsort(-result.outcomes.scores[i], kind="stable")[:5]
        assert row[4:9] == ([""] * 5 if i in (1, 5) else [HOSTILE[k] for k in best])
    table = read_predictions(tmp_path / "predictions.csv")
    assert (table.class_names, table.ids, table.paths) == (HOSTILE, result.ids, result.paths)  # to the last character
    np.testing.assert_array_equal(table.scores, result.outcomes.scores)  # to the last bit
    np.testing.assert_array_equal(table.targets, result.outcomes.targets)
    again = compute_metrics(made_outcomes(table.scores, table.targets, multi_label))
    assert again == pytest.approx(result.metrics, abs=0, nan_ok=True)


def test_files_of_an_earlier_evaluation_do_not_stay(tmp_path):
    plain = {"metrics.json", "predictions.csv", "confusion.csv", "confusion.png", "reliability.png"}
    for unreadable, expected in (((2,), plain | {"unreadable.csv"}), ((), plain)):
        written = write_report(hostile(False, unreadable), tmp_path)
        assert written == {path.name for path in tmp_path.iterdir()} == expected
    assert "average_precision.png" in write_report(hostile(True), tmp_path / "multi")


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    result = hostile(False)
    write_report(replace(result, paths=["\udcff.mp4", *result.paths[1:]]), tmp_path)
    assert read_predictions(tmp_path / "predictions.csv").paths[0] == "\\udcff.mp4"  # lone surrogates are escaped
    before = (tmp_path / "predictions.csv").read_bytes()
    with pytest.raises(IndexError):
        write_report(replace(result, paths=result.paths[:5]), tmp_path)
    assert (tmp_path / "predictions.csv").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_summary_shows_each_metric_beside_chance_and_names_excluded_classes_and_videos():
    result = made_result(23, ("a", "b", "c", "d"), max_videos=23)
    text = "\n".join(report.summary_lines(result, metrics_record(result)))
    assert re.search(rf"^top1 +{100 * result.metrics['top1']:.2f}% +[\d.]+% +25\.00% .*34\.78%\)$", text, re.MULTILINE)
    assert re.search(r"^f1_macro +[\d.]+% +[\d.]+%", text, re.MULTILINE)
    for part in ("23 videos annotated, 23 scored, 0 unreadable", "3 crops, 4 clips", "first 23 videos"):
        assert part in text
    result = hostile(True, tuple(range(12)))
    lines = report.summary_lines(result, metrics_record(result))
    text, metrics = "\n".join(lines), (result.metrics["mAP"], result.metrics_readable["mAP"])
    shown = "mAP +{:.2f}% +[\\d.]+% +{:.2f}% ".format(*(100 * value for value in metrics))
    assert re.search(f"^{shown}", text, re.MULTILINE)
    assert re.search(r"^mAP_charades +none +none +none ", text, re.MULTILINE)
    assert "as these have no videos: no videos" in text
    assert "and 4 more, listed in unreadable.csv" in text
