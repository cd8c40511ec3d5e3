"""The files of a report: readable by strict readers, exact, inert whatever the names are, and whole."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vidtl.metrics.classification import chance_levels, confusion_matrix

from vidtl.evaluation import report
from vidtl.evaluation.evaluator import all_metrics
from vidtl.evaluation.predictions import read_predictions
from vidtl.evaluation.report import metrics_record
from vidtl.evaluation.result import EvaluationResult, Unreadable
from vidtl.runtime.escape import cell_text

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font:UserWarning")

HOSTILE = (
    "=1+1",
    '@SUM(A1),"quoted"',
    "-2",
    "+3|x",
    "a\r\nb\x00\x1b[31m\u2028\x85",
    "  =HYPERLINK(1)",
    "'apostrophe",
    "$\\frac{",
    "＝1",
    "<script>, straße, 跑",
)


def make_result(
    multi_label: bool, unreadable: tuple[int, ...] = (), names: tuple[str, ...] = HOSTILE
) -> EvaluationResult:
    rng = np.random.default_rng(0)
    num_videos, num_classes = 23, len(names)
    labels = np.arange(num_videos) % num_classes
    targets = np.eye(num_classes, dtype=np.float32)[labels]
    if multi_label:
        targets[:, 1] = 1
        targets[:, 2] = 0
    scores = rng.normal(0, 1, targets.shape) + targets
    scores[list(unreadable)] = -np.inf
    readable = [i for i in range(num_videos) if i not in unreadable]
    ids = [f"{names[i % num_classes]}{i}" for i in range(num_videos)]
    paths = [f"{names[i % num_classes]}/{i}.mp4" for i in range(num_videos)]

    def metrics(rows) -> dict[str, float]:
        return all_metrics(scores[rows], targets[rows], "mean_logits", multi_label, names)

    return EvaluationResult(
        annotation="folder/=list\x1b[2J.csv",
        root="/videos",
        protocol="center",
        num_clips=1,
        num_crops=1,
        fusion="mean_logits",
        multi_label=multi_label,
        max_videos=0,
        num_annotated=num_videos,
        num_scored=len(readable),
        unreadable=[Unreadable(ids[i], paths[i], "=broken\n\x1b[1mfile") for i in unreadable],
        metrics=metrics(list(range(num_videos))),
        metrics_readable=metrics(readable),
        class_names=names,
        ids=ids,
        paths=paths,
        scores=scores,
        targets=targets,
    )


def write_report(result: EvaluationResult, folder: Path) -> list[Path]:
    return report.write_report(result, metrics_record(result), folder)


def summary_lines(result: EvaluationResult) -> list[str]:
    return report.summary_lines(result, metrics_record(result))


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_json_is_strict_and_accounts_for_every_video(tmp_path, multi_label):
    result = make_result(multi_label, (1, 5))
    write_report(result, tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    record = json.loads((tmp_path / "metrics.json").read_bytes().decode("ascii"), parse_constant=refuse)
    assert (record["num_annotated"], record["num_scored"], record["num_unreadable"]) == (23, 21, 2)
    for key in ("metrics", "metrics_readable"):
        expected = getattr(result, key)
        assert record[key] == {name: None if math.isnan(value) else value for name, value in expected.items()}
    assert [row["class"] for row in record["per_class"]] == list(HOSTILE)
    assert [row["videos"] for row in record["per_class"]] == result.targets.sum(0).tolist()
    values = [row["average_precision" if multi_label else "accuracy"] for row in record["per_class"]]
    mean = np.mean([value for value in values if value is not None])
    assert mean == pytest.approx(record["metrics"]["mAP" if multi_label else "mean_class_accuracy"])
    assert record["classes_without_positives"] == (["-2"] if multi_label else [])
    assert [tuple(row.values()) for row in record["unreadable"]] == [tuple(row) for row in result.unreadable]
    assert set(record["versions"]) == {"vidtl", "python", "accelerate", "numpy", "torch", "torchmetrics"}
    assert set(record["chance"]) >= set(record["metrics"]) - {"classes_without_positives", "ece"}
    assert (record["protocol"], record["num_views"], record["fusion"]) == ("center", 1, "mean_logits")
    assert record["calibration"]["ece"] == record["metrics"]["ece"]
    assert sum(record["calibration"]["counts"]) == 21 * (len(HOSTILE) if multi_label else 1)
    for name, limits in record["intervals"].items():
        if limits["low"] is not None:
            assert 0 <= limits["low"] <= record["metrics"][name] <= limits["high"] <= 1
    assert "top1" in record["intervals"] or "mAP" in record["intervals"]


def test_keys_of_metrics_json_are_the_same_for_all_data(tmp_path):
    for multi_label in (False, True):
        write_report(make_result(multi_label), tmp_path / str(multi_label))
    single, multi = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("False", "True"))
    assert list(single) == list(multi)


@pytest.mark.parametrize("multi_label", [False, True])
def test_metrics_can_be_computed_again_from_the_predictions(tmp_path, multi_label):
    result = make_result(multi_label, (1, 5))
    write_report(result, tmp_path)
    header, *rows = rows_of(tmp_path / "predictions.csv")
    assert header[:9] == ["id", "path", "true_labels", "status", "top_1", "top_2", "top_3", "top_4", "top_5"]
    assert len(header) == 9 + len(HOSTILE)
    assert all(len(row) == len(header) for row in rows)
    assert [row[3] for row in rows] == ["unreadable" if i in (1, 5) else "scored" for i in range(23)]
    for i, row in enumerate(rows):
        if i in (1, 5):
            assert not any(row[4:])
        else:
            np.testing.assert_array_equal(np.array(row[9:], float), result.scores[i])  # to the last bit
            order = np.argsort(-result.scores[i])[:5]
            assert row[4:9] == [cell_text(HOSTILE[k]) for k in order]
    table = read_predictions(tmp_path / "predictions.csv")
    assert (table.class_names, table.ids, table.paths) == (HOSTILE, result.ids, result.paths)  # to the last character
    np.testing.assert_array_equal(table.scores, result.scores)
    np.testing.assert_array_equal(table.targets(), result.targets)
    again = all_metrics(table.scores, table.targets(), result.fusion, multi_label, table.class_names)
    assert again == result.metrics


def test_text_cells_are_inert_and_rows_are_single_lines(tmp_path):
    result = make_result(False, (0, 3))
    write_report(result, tmp_path)
    for name, score_columns in (("predictions.csv", 9), ("unreadable.csv", None), ("confusion.csv", 1)):
        raw = (tmp_path / name).read_bytes()
        assert not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f]", raw)
        rows = rows_of(tmp_path / name)
        assert raw.count(b"\r\n") == raw.count(b"\n") == len(rows)  # RFC 4180: CRLF, and only between rows
        cells = rows[0] + [cell for row in rows[1:] for cell in row[:score_columns]]
        assert len(cells) >= 9
        assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@＝")]
    unreadable = rows_of(tmp_path / "unreadable.csv")
    assert unreadable[1] == ["'=1+10", "'=1+1/0.mp4", "'=broken\\n\\x1b[1mfile"]


def test_the_confusion_matrix_is_written_in_numbers(tmp_path):
    result = make_result(False, (0, 3))
    write_report(result, tmp_path)
    header, *rows = rows_of(tmp_path / "confusion.csv")
    assert header[0] == "true class"
    assert header[-1] == "unreadable"
    counts = np.array([row[1:] for row in rows], int)
    np.testing.assert_array_equal(counts, confusion_matrix(result.scores, result.targets))
    assert counts.sum() == 23
    assert counts[:, -1].sum() == 2


def test_files_without_unreadable_videos_and_left_overs(tmp_path):
    assert {path.name for path in write_report(make_result(False, (2,)), tmp_path)} == names_in(tmp_path)
    assert "unreadable.csv" in names_in(tmp_path)
    assert {path.name for path in write_report(make_result(False), tmp_path)} == names_in(tmp_path)
    assert names_in(tmp_path) == {"metrics.json", "predictions.csv", "confusion.csv", "confusion.png"}


@pytest.mark.parametrize(("multi_label", "name"), [(False, "confusion.png"), (True, "average_precision.png")])
def test_the_figure_opens(tmp_path, multi_label, name):
    write_report(make_result(multi_label), tmp_path)
    with Image.open(tmp_path / name) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    result = make_result(False)
    write_report(result, tmp_path)
    before = (tmp_path / "predictions.csv").read_bytes()
    with pytest.raises(IndexError):
        write_report(replace(result, paths=result.paths[:5]), tmp_path)
    assert (tmp_path / "predictions.csv").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_undecodable_file_names_are_written_as_escapes(tmp_path):
    result = make_result(False)
    write_report(replace(result, paths=["\udcff.mp4", *result.paths[1:]]), tmp_path)
    assert rows_of(tmp_path / "predictions.csv")[1][1] == "\\udcff.mp4"
    assert read_predictions(tmp_path / "predictions.csv").paths[0] == "\udcff.mp4"


def test_summary_shows_each_metric_beside_chance(tmp_path):
    result = make_result(False, names=("a", "b", "c", "d"))
    text = "\n".join(summary_lines(result))
    top1 = f"{100 * result.metrics['top1']:.2f}%"
    assert re.search(rf"^top1 +{re.escape(top1)} +[\d.]+%? +25\.00%  \(largest class 26\.09%\)$", text, re.MULTILINE)
    assert re.search(r"^top5 +100\.00% +85\.69\.\.100\.00% +100\.00%$", text, re.MULTILINE)
    assert "23 videos annotated, 23 scored, 0 unreadable" in text
    assert "protocol center: 1 clips x 1 crops = 1 views, fusion mean_logits" in text
    assert " readable " not in text.splitlines()[3]
    assert "quick look" not in text
    assert "at most the first 23 videos" in "\n".join(summary_lines(replace(result, max_videos=23)))


def test_summary_of_multi_label_data_names_what_is_left_out():
    result = make_result(True, tuple(range(12)))
    lines = summary_lines(result)
    text = "\n".join(lines)
    chance = chance_levels(result.targets, True)
    values = (result.metrics["mAP"], result.metrics_readable["mAP"], chance["mAP"], chance["positive_rate"])
    shown = "mAP +{:.2f}% +[\\d.]+% +{:.2f}% +{:.2f}%  \\(equal scores {:.2f}%\\)".format(
        *(100 * value for value in values)
    )
    assert re.search(f"^{shown}$", text, re.MULTILINE)
    assert re.search(r"^mAP_charades +none +none +none  \(official: .*\)$", text, re.MULTILINE)
    assert "classes without videos, left out of the means (mAP_charades needs all classes): -2" in lines
    assert "and 4 more, listed in unreadable.csv" in text
    assert all(line.isprintable() for line in lines)
