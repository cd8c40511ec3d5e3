"""Submission files for Charades: scored from the command line without a model, and written by an evaluation."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import charades_submission
import eval as evaluation
import numpy as np
import pytest
from charades_submission import read_annotations

from tests.annotations.sets import read
from tests.refusals import assert_refusal, refused
from vidtl.metrics import METRICS
from vidtl.metrics.average_precision import Rankings
from vidtl.metrics.charades import match_submission, official_rankings, scores_of, write_submission
from vidtl.metrics.charades_localize import point_labels, point_times, read_localization

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\r\n"


def annotate(path, num_videos):
    """Write a file with the columns and line ends of the official ones; every 30th video has no action."""
    targets = np.random.default_rng(0).random((num_videos, 157)) < 0.055
    targets[::30] = False
    targets[1] = True
    ids = [f"V{i:04d}" for i in range(num_videos)]
    with path.open("w", newline="") as file:
        file.write(HEADER)
        for video, row in zip(ids, targets, strict=True):
            actions = ";".join(f"c{k:03d} 0.00 {k}.50" for k in np.flatnonzero(row))
            file.write(f'{video},HR43,Kitchen,6,7,Yes,"A person, walking",a;b,"walks; sits",{actions},30.5\r\n')
    return ids, targets


@pytest.fixture
def judge(run_main):
    return partial(run_main, evaluation.main)


def test_the_figures_are_the_official_ones_and_irregularities_are_reported(judge, tmp_path):
    ids, targets = annotate(tmp_path / "test.csv", 60)
    scores = np.random.default_rng(2).random(targets.shape)
    write_submission(tmp_path / "s.txt", [*ids[5:], "stranger\x1b[31m", ids[7]], np.r_[scores[5:], scores[:2]])
    output, errors = judge("--charades-submission", tmp_path / "s.txt", "--annotations", tmp_path / "test.csv")
    assert errors == ""
    missing, unknown, repeated = output.splitlines()[-3:]
    assert (missing[:2], missing.partition(": ")[2]) == ("4 ", "V0001, V0002, V0003, V0004")
    assert unknown.endswith(": stranger\\x1b[31m")
    assert repeated.startswith("1 ")
    table = np.full(targets.shape, -np.inf)
    table[5:] = scores[5:]
    table[7] = scores[1]
    expected = scores_of(official_rankings(table, targets))
    assert f"mAP           {expected.mean_ap:.6f}" in output
    assert f"mAP weighted  {expected.weighted_ap:.6f}" in output
    assert "60 videos, 58 of them with actions" in output


def test_localization_of_a_file_of_the_official_form(judge, tmp_path):
    """Ids, actions and lengths of the columns by name, and a line of each kind that counts for nothing."""
    ids, _ = annotate(tmp_path / "test.csv", 60)
    keys = [f"{video} {frame}" for video in ids for frame in range(1, 26)][3:]
    scores = np.random.default_rng(3).random((len(keys), 157))
    lines = [*keys, "stranger 1", "V0001 26", keys[9], keys[9]]
    write_submission(tmp_path / "s.txt", lines, np.r_[scores, scores[:3], scores[9:10]], num_words=2)
    output, errors = judge("--charades-localization", tmp_path / "s.txt", "--annotations", tmp_path / "test.csv")
    assert errors == ""
    _, *labels, lengths_s = read_annotations(tmp_path / "test.csv", 157, timed=True)
    targets = point_labels(point_times(lengths_s), *labels, num_classes=157)
    table = np.concatenate([np.full((3, 157), -np.inf), scores])
    official = scores_of(Rankings.of(table, targets, keep_order=True))
    assert f"60 videos x 25 points, {targets.sum()} positives" in output
    assert [f"{value:.6f}" in output for value in (official.mean_ap, official.weighted_ap)] == [True, True]
    missing, unknown, frames, repeated = output.splitlines()[-4:]
    assert [line[:2] for line in (missing, unknown, frames, repeated)] == ["3 ", "1 ", "1 ", "2 "]
    only_one = ("--charades-submission", tmp_path / "s.txt", "--charades-localization", tmp_path / "s.txt")
    assert_refusal(judge(*only_one, "--annotations", "a.csv", code=2)[1], "--charades-submission")


@pytest.mark.parametrize("action", ["c000 x 2", "c000 1 nan", "c000 1", "c157 1 2", "kitchen"])
@pytest.mark.parametrize("length", ["", "1"])
def test_wrong_actions_are_refused(tmp_path, action, length):
    (tmp_path / "test.csv").write_text(f"length,id,actions\n{length},V1,{action}\n")
    with refused("test.csv:2", "actions", repr(action), "'c000 <start> <end>'", "'c156'"):
        read_annotations(tmp_path / "test.csv", 157, timed=bool(length))


def test_evaluation_file(judge, untrained_model, toy_multilabel, tmp_path):
    """The submission file scores as the metrics of its evaluation."""
    data = ["--data.dataset", "toy_multilabel", "--data.root", toy_multilabel, "--data.num_workers", "0"]
    output, _ = judge("--checkpoint", untrained_model, *data, "--html", "false", "--output_dir", tmp_path)
    assert "charades_submission.txt" in output
    ids, owners, classes, *_ = read_annotations(toy_multilabel / "val.csv", 8)
    targets = np.zeros((len(ids), 8), bool)
    targets[owners, classes] = True
    submission = match_submission(tmp_path / "val-center/charades_submission.txt", ids, targets)
    metrics = json.loads((tmp_path / "val-center/metrics.json").read_text())["metrics"]
    assert scores_of(official_rankings(submission.scores, targets)).mean_ap == metrics["mAP_charades"]
    assert 0 < metrics["f1_macro"] < 1
    assert not submission.missing_ids


def test_ids_with_spaces(judge, untrained_model, toy_multilabel, tmp_path):
    """An id that no submission can hold leaves the other files and the summary."""
    copy = Path(shutil.copytree(toy_multilabel, tmp_path / "copy"))
    video, annotation = min((copy / "videos/val").iterdir()), copy / "val.csv"
    video.rename(video.with_stem("one two"))
    annotation.write_text(annotation.read_text().replace(video.stem, "one two"))
    data = ["--data.dataset", "toy_multilabel", "--data.root", copy, "--data.num_workers", "0"]
    output, errors = judge("--checkpoint", untrained_model, *data, "--html", "false", "--output_dir", tmp_path, code=2)
    assert_refusal(errors.splitlines()[-1], "'one two'", "charades_submission.txt")
    assert "mAP_charades" in output
    assert (tmp_path / "val-center/metrics.json").is_file()


def test_localization_of_a_model(judge, untrained_model, toy_multilabel, tmp_path, monkeypatch):
    """The submission file of an evaluation has its figures; an unreadable file's rows are missing from it."""
    root = Path(shutil.copytree(toy_multilabel, tmp_path / "toy"))
    annotated = read_annotations(root / "val.csv", 8, timed=True)
    (root / "videos/val" / f"{annotated.ids[1]}.mp4").write_bytes(b"no video")
    data = ["--data.dataset", "toy_multilabel", "--data.root", root, "--data.num_workers", "0"]
    options = ["--evaluation.protocol", "charades_localize", "--output_dir", tmp_path]
    output, _ = judge("--checkpoint", untrained_model, *data, *options)
    folder = tmp_path / "val-charades_localize"
    record = json.loads((folder / "metrics.json").read_text())
    assert (record["num_annotated"], record["num_unreadable"]) == (len(annotated.ids), 1)
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == annotated.ids
    scores, remarks = read_localization(folder / "charades_localization_submission.txt", annotated.ids, 8)
    assert [count for count in remarks.values() if count] == [25]  # missing
    names = [name for name in rows[0] if name.startswith("score: ")]
    table = [[float(row[name] or -np.inf) for name in names] for row in rows]
    np.testing.assert_array_equal(scores.reshape(-1, 25, 8).max(axis=1), table)
    _, *labels, lengths_s = annotated
    targets = point_labels(point_times(lengths_s), *labels, num_classes=8)
    official = scores_of(Rankings.of(scores, targets, keep_order=True))
    metrics = record["metrics"]
    assert metrics["mAP_localize"] == official.mean_ap == metrics["mAP_localize_present"]
    assert metrics["mAP_localize_weighted"] == official.weighted_ap
    values = [entry["average_precision_localize"] for entry in record["per_class"]]
    assert values == official.average_precisions.tolist()
    limits = record["intervals"]["mAP_localize"]
    assert limits["low"] < official.mean_ap < limits["high"]
    assert "mAP_localize_weighted" in output
    assert METRICS["mAP_localize"].title in (folder / "report.html").read_text()
    monkeypatch.setattr(charades_submission, "NUM_CLASSES", 8)
    file = folder / "charades_localization_submission.txt"
    printed, _ = judge("--charades-localization", file, "--annotations", root / "val.csv")
    assert f"{official.mean_ap:.6f}" in printed


def test_localization_in_two_processes(judge, launch, random_model, shared_data, tmp_path):
    """Real videos whose annotation has no lengths; the processes share the windows of a video."""
    root = shared_data / "gmdcsa24"
    names = (*read("gmdcsa24_sample", "val", root).classes.names, "Another")
    options = ["--checkpoint", random_model(tmp_path / "model", class_names=names), "--data.dataset", "gmdcsa24_sample"]
    options += ["--data.root", root, "--data.num_workers", "0", "--evaluation.protocol", "charades_localize"]
    options += ["--html", "false", "--output_dir"]
    done = launch("cpu_2_processes", "eval", *options, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    judge(*options, tmp_path / "one")
    one, two = (tmp_path / name / "val-charades_localize" for name in ("one", "two"))
    for file in ("metrics.json", "predictions.csv"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    record = json.loads((one / "metrics.json").read_text())
    assert (record["num_scored"], record["metrics"]["mAP_localize"]) == (5, None)  # a class has no video
    assert record["chance"]["mAP_localize_present"] > 0
    assert 0 < record["metrics"]["mAP_localize_present"] < 1
    assert not (one / "charades_localization_submission.txt").exists()
