"""Predictions for lists without labels in the forms of Charades, Something-Something V2 and as a CSV."""

import csv
import json

import eval as evaluation
import numpy as np
import predict as prediction
import pytest
from toy_clip import MOTIONS

from tests.annotations.sets import write
from tests.evaluation.prediction_table import read_predictions
from vidtl.metrics.charades import read_submission

NUMBERS = {name: str((3 * k) % 8) for k, name in enumerate(MOTIONS)}  # another order than the model's
SPLITS = "splits: {train: {annotations: train.F, videos: videos/val}, val: {annotations: test.F, videos: videos/val}}"
FORMS = {
    "ssv2_json": (["labels: single", "classes: labels.json", "files: '{id}.mp4'"], "json"),
    "kinetics_csv": (["labels: single", "files: '{id}_{start:06d}_{end:06d}.mp4'"], "csv"),
    "labelled_table": (["labels: single", "files: '{video}.*'"], "jsonl"),
    "charades_csv": (["labels: multi", "classes: classes.txt", "files: '{id}.mp4'"], "csv"),
}


@pytest.fixture(scope="module")
def models(random_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    kinds = {"single": False, "multi": True}
    return {f"labels: {k}": random_model(folder / k, multi_label=m, class_names=MOTIONS) for k, m in kinds.items()}


@pytest.fixture(params=FORMS)
def test_list(request, toy, tmp_path):
    """A test list without labels of toy videos, the last of which is missing: format, folder and ids."""
    form, (lines, ending) = request.param, FORMS[request.param]
    videos = [path.stem for path in sorted((toy / "videos/val").iterdir())[:4]] + ["lost_000001_000002"]
    parts = [(name, *map(int, times)) for name, *times in (video.rsplit("_", 2) for video in videos)]
    listed = {
        "ssv2_json": (json.dumps([{"id": v} for v in videos]), json.dumps([{"id": "1", "template": MOTIONS[0]}])),
        "kinetics_csv": (
            "youtube_id,time_start,time_end,split\n" + "".join(f"{n},{a},{b},test\n" for n, a, b in parts),
            "label,youtube_id,time_start,time_end\n"
            + "".join(f"{name},x,{k},{k + 1}\n" for k, name in enumerate(MOTIONS)),
        ),
        "labelled_table": (
            "\n".join(json.dumps({"video": video}) for video in videos),
            "\n".join(json.dumps({"video": name, "label": name}) for name in MOTIONS),
        ),
        "charades_csv": ("id,subject\n" + "".join(f"{video},HR43\n" for video in videos), "id,actions,length\nx,,3\n"),
    }[form]
    files = {"dataset.yaml": "\n".join([f"format: {form}", *lines, SPLITS.replace("F", ending)]) + "\n"}
    files |= {f"test.{ending}": listed[0], f"train.{ending}": listed[1], "labels.json": json.dumps(NUMBERS)}
    write(tmp_path, files | {"classes.txt": "".join(f"c{k:03d} {name}\n" for k, name in enumerate(MOTIONS))})
    (tmp_path / "videos").symlink_to(toy / "videos")
    return form, tmp_path, videos


def test_every_form_has_the_scores_of_an_evaluation(run_main, models, test_list, toy, tmp_path):
    form, root, videos = test_list
    model = models[FORMS[form][0][0]]
    options = ["--checkpoint", model, "--evaluation.batch_size", "10", "--evaluation.protocol", "center"]
    options += ["--data.num_workers", "0"]
    data = ["--data.dataset", root, "--data.root", root]
    output, errors = run_main(prediction.main, *options, *data, "--submission", root / "out/scores.txt", code=4)
    assert "lost_000001_000002" in output
    assert "1 of 5 videos could not be read" in errors

    options[1] = models["labels: single"]
    more = ["--data.dataset", "toy", "--data.root", toy, "--output_dir", root / "eval", "--html", "false"]
    run_main(evaluation.main, *options, *more)
    table = read_predictions(root / "eval/val-center/predictions.csv")
    rows = [table.scores[table.ids.index(video)] for video in videos[:4]]
    path = root / "out/scores.txt"
    if form == "charades_csv":
        found, _ = read_submission(path, len(MOTIONS))
        assert list(found) == videos[:4]
        assert np.array_equal(list(found.values()), rows)
    elif form == "ssv2_json":
        lines = [line.split(";") for line in path.read_text().splitlines()]
        assert [line[0] for line in lines] == videos[:4]
        best = [[NUMBERS[table.class_names[k]] for k in np.argsort(-row)[:5]] for row in rows]
        assert [line[1:] for line in lines] == best
    else:
        header, *lines = csv.reader(path.open(newline=""))
        assert header == ["id", "top_1", *(f"score: {name}" for name in MOTIONS)]
        assert [line[0] for line in lines] == videos
        assert lines[-1][1:] == [""] * (len(MOTIONS) + 1)
        order = [table.class_names.index(name) for name in MOTIONS]
        assert np.array_equal(np.array([line[2:] for line in lines[:-1]], float), np.array(rows)[:, order])
        assert [line[1] for line in lines[:-1]] == [table.class_names[row.argmax()] for row in rows]


def test_such_a_list_cannot_be_evaluated(run_main, models, test_list):
    form, root, _ = test_list
    options = ["--checkpoint", models[FORMS[form][0][0]], "--data.dataset", root, "--data.root", root]
    column = {"charades_csv": "'actions'", "ssv2_json": "'template'"}.get(form, "'label'")
    run_main(evaluation.main, *options, "--output_dir", root / "eval", refused=["test.", column])
    assert not (root / "eval").exists()
