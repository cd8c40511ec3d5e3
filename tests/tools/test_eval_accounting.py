"""Evaluations of which 5 % cannot be read, of some classes, of several models; and their page."""

import csv
import json
import shutil
from pathlib import Path

import eval as evaluation
import pytest
import report
from toy_clip import MOTIONS

from tests.evaluation.made_result import made_report, made_result
from tests.tools.conftest import make_set
from vidtl.data.dataset import ViewDataset
from vidtl.models import VideoModel, save_model_directory
from vidtl.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """40 videos to evaluate on, one of them cut, one of them gone."""
    folder = make_set(tmp_path_factory.mktemp("forty"), seed=4, videos_per_class_train=1, videos_per_class_val=5)
    files = sorted((folder / "videos/val").iterdir())
    assert len(files) == 40
    files[7].write_bytes(files[7].read_bytes()[:300])
    files[31].unlink()
    return folder


@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_unreadable_videos_are_counted_and_listed(run_main, videos, untrained_model, tmp_path, strict):
    bad = sorted((videos / "videos/val").iterdir())[7].name
    options = ["--checkpoint", untrained_model, "--data.dataset", "toy", "--data.root", videos]
    options += ["--output_dir", tmp_path, "--data.num_workers", "0", "--html", "false", *strict]
    output, _ = run_main(evaluation.main, *options, code=4 if strict else 0)
    assert "40 videos annotated, 38 scored, 2 unreadable" in output
    assert "protocol center: center crop, 1 clip, fusion mean_logits" in output
    record = json.loads((tmp_path / "val-center/metrics.json").read_text())
    assert (record["num_annotated"], record["num_scored"], record["num_unreadable"]) == (40, 38, 2)
    assert record["metrics_readable"]["top1"] * 38 == pytest.approx(record["metrics"]["top1"] * 40)
    rows = list(csv.DictReader((tmp_path / "val-center/unreadable.csv").open()))
    listed = {row["path"] for row in rows}
    assert len(rows) == 2
    assert rows == record["unreadable"]
    present = {path.name for path in (videos / "videos/val").iterdir()}
    assert {Path(path).name for path in listed} & present == {bad}  # the other one is gone
    assert all(row["reason"] for row in rows)
    predictions = list(csv.DictReader((tmp_path / "val-center/predictions.csv").open()))
    assert {row["path"] for row in predictions if row["status"] == "unreadable"} == listed
    assert len({row["id"] for row in predictions}) == len(predictions) == 40


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_some_of_the_models_classes(run_main, random_model, toy, tmp_path, labels):
    """Three classes in another order: their scores and ranks are those among all classes of the model."""
    part = tmp_path / "part"
    shutil.copytree(toy / "videos/val", part / "videos/val")
    head, *rows = (toy / "val.csv").read_text().splitlines()
    chosen = [row for row in rows if row.split(",")[0] in MOTIONS[2:5]]
    (part / "val.csv").write_text("\n".join([head, *chosen]))
    text = f"format: kinetics_csv\nlabels: {labels}\nfiles: '{{id}}_{{start:06d}}_{{end:06d}}.mp4'\n"
    (part / "dataset.yaml").write_text(f"{text}splits: {{val: {{annotations: val.csv, videos: videos/val}}}}\n")
    model = random_model(tmp_path / "model", class_names=MOTIONS)
    found = {}
    for dataset, root in (("toy", toy), (part, part)):
        options = ["--checkpoint", model, "--data.dataset", dataset, "--data.root", root, "--data.num_workers", "0"]
        options += ["--html", "false", "--evaluation.batch_size", "1", "--output_dir", tmp_path / root.name]
        output, _ = run_main(evaluation.main, *options)
        rows = list(csv.DictReader((tmp_path / root.name / "val-center/predictions.csv").open()))
        found[root] = {row["id"]: {name: row[name] for name in row if name[:4] in ("top_", "scor")} for row in rows}
    assert "means over 3 of 8 classes" in output
    scores = [name for name in rows[0] if name.startswith("score: ")]
    assert scores[:3] == [f"score: {name}" for name in sorted(MOTIONS[2:5])]
    assert len(found[part]) == 6
    assert found[part] == {video: found[toy][video] for video in found[part]}
    record = json.loads((tmp_path / "part/val-center/metrics.json").read_text())
    metric, values = "top1", [row["top_1"] == row["true_labels"] for row in rows]
    if labels == "multi":
        metric, values = "mAP", [each["average_precision"] for each in record["per_class"] if each["videos"]]
    assert record["metrics"][metric] == pytest.approx(sum(values) / len(values))
    assert len(record["classes_without_positives"]) == 5


def test_results_of_several_models(run_main, untrained_model, toy, tmp_path, monkeypatch):
    first = Path(shutil.copytree(untrained_model, tmp_path / "run/checkpoints/step-00000008"))
    second = Path(shutil.copytree(untrained_model, tmp_path / "run/checkpoints/step-00000016"))
    (second / "config.json").write_text((second / "config.json").read_text() + "\n")  # a model of another fingerprint
    data = ["--data.dataset", "toy", "--data.root", toy, "--data.num_workers", "0", "--evaluation.max_videos", "3"]
    plain = ["--html", "false"]
    for checkpoint, options in ((first, []), (second, plain), (second, plain)):  # the same command works again
        run_main(evaluation.main, "--checkpoint", checkpoint, *data, *options)
    for checkpoint, step in ((first, 8), (second, 16)):
        folder = tmp_path / f"run/evaluation/{checkpoint.name}/val-center-first-3"
        record = json.loads((folder / "metrics.json").read_text())
        fingerprint = Checkpoint(checkpoint).fingerprint()
        model = {"path": str(checkpoint), "step": step, "averaged_weights": False, "fingerprint": fingerprint}
        assert record["model"] == model
        assert record["settings"]["clip.frame_size"] == [32, 32]
    page = (tmp_path / "run/evaluation" / first.name / "val-center-first-3/report.html").read_text()
    assert all(fact in page for fact in (str(first), Checkpoint(first).fingerprint(), "clip.stride"))

    options = [*data, *plain, "--output_dir", tmp_path / "report"]
    run_main(evaluation.main, "--checkpoint", first, *options)
    before = {path: path.read_bytes() for path in (tmp_path / "report/val-center-first-3").glob("*.*")}
    monkeypatch.setattr(ViewDataset, "_read", None)  # refused before any video is opened
    run_main(evaluation.main, "--checkpoint", second, *options, refused=[f"{first} (step 8, ", f"{second} (step 16, "])
    assert {path: path.read_bytes() for path in before} == before


@pytest.fixture
def options(untrained_model, toy, tmp_path):
    """Options of an evaluation of five videos by a model whose classes are in another order than the data's."""
    model = VideoModel.from_pretrained(str(untrained_model))
    model.class_names = MOTIONS[::-1]
    save_model_directory(model, tmp_path / "model")
    data = ["--data.dataset", "toy", "--data.root", toy, "--data.num_workers", "0", "--evaluation.max_videos", "5"]
    return ["--checkpoint", tmp_path / "model", *data, "--output_dir", tmp_path / "report"]


def test_a_page_can_be_written_again(run_main, options, tmp_path):
    output, errors = run_main(evaluation.main, *options)
    (page,) = tmp_path.glob("report/*/report.html")
    assert str(page) in output
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 5
    assert "5 videos annotated, 5 scored" in text
    page.unlink()
    output, errors = run_main(report.main, page.parent)
    assert errors == ""
    assert page.read_text() == text


def test_a_failure_to_draw_costs_the_pictures_only(run_main, options, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(evaluation, "draw_examples", fail)
    _, errors = run_main(evaluation.main, *options)
    assert "RuntimeError: out of memory" in errors
    (page,) = tmp_path.glob("report/*/report.html")
    assert "data:image/webp" not in page.read_text()


def test_the_page_can_be_left_out(run_main, options, tmp_path):
    earlier = made_report(made_result(3, ["one", "two"]), tmp_path / "report/val-center-first-5")
    (earlier.parent / "metrics.json").unlink()
    output, _ = run_main(evaluation.main, *options, "--html", "false")
    assert "report.html" not in output
    assert (earlier.parent / "metrics.json").exists()
    assert not earlier.exists()
    assert not list((earlier.parent / "examples").iterdir())
