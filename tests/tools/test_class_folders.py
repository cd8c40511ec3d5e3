"""Training and evaluation on class folders: nested ones, some of them links, and without a description."""

import csv
import json
import shutil

import eval as evaluation
import predict as prediction
import prepare
import pytest
import train

from tests.refusals import assert_refusal
from tests.tools.conftest import CLASS_FOLDERS, copy_videos


@pytest.fixture
def folders(toy, tmp_path):
    """`class/subject/clip`, one class beside and below, one on another disk: a description and its root."""
    videos = sorted((toy / "videos/val").iterdir())
    places = ("walk/s1/a.mp4", "walk/s2/b.mp4", "run/c.mp4", "run/more/d.MP4")
    for split in ("train", "val"):
        copy_videos(tmp_path / "root" / split, dict(zip(places, videos, strict=False)))
    shutil.move(tmp_path / "root/train/run", tmp_path / "disk")
    (tmp_path / "root/train/run").symlink_to(tmp_path / "disk")
    (tmp_path / "root/train/walk/s1/loop").symlink_to("/")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/dataset.yaml").write_text(CLASS_FOLDERS)
    return tmp_path / "set", tmp_path / "root"


def test_all_are_trained_on_and_a_class_that_loses_its_clips_ends_the_run_unless_allowed(
    folders, tmp_path, run_main, tiny
):
    options = [*tiny, "--schedule.length", "1 steps", "--schedule.warmup", "0 steps", "--data.num_workers", "0"]
    options += ["--data.dataset", folders[0], "--data.root", folders[1]]
    _, err = run_main(train.main, *options, "--output_dir", tmp_path / "first")
    assert "4 videos to train on, 4 to evaluate on, 2 classes" in err
    assert "as walk/s1/loop" in err

    for file in tmp_path.glob("disk/**/*.[mM]*4"):
        file.unlink()
    _, err = run_main(train.main, *options, "--output_dir", tmp_path / "second", code=2)
    assert_refusal(err.splitlines()[-1], "'run'", "data.allow_empty_classes")
    assert not (tmp_path / "second").exists()
    allowed = ("--data.allow_empty_classes", "true")
    run_main(train.main, *options, "--output_dir", tmp_path / "second", *allowed)


SIZE = [
    *("--clip.num_frames", "8", "--clip.stride", "1", "--clip.frame_size", "[32,32]", "--clip.short_side", "36"),
    *("--model.depth", "2", "--model.temporal_depth", "1", "--model.tubelet", "[8,16,16]"),
    *("--training.batch_size", "2", "--schedule.length", "1 steps", "--schedule.warmup", "0 steps"),
    *("--model.token_learner.num_tokens", "0", "--data.num_workers", "0"),
]
SMALL, LARGE = ["--model.width", "24", "--model.num_heads", "3"], ["--model.width", "768"]


@pytest.mark.parametrize("layout", ["train/{}, valid/{}", "{}"])
def test_the_root_alone_is_enough(toy, tmp_path, run_main, layout):
    root, run = tmp_path / "birds", tmp_path / "run"
    for number, video in enumerate(sorted((toy / "videos/train").iterdir())[:20]):
        places = layout.split(", ")
        folder = places[number // 2 % 5 == 0 and -1].format(("wren", "great tit")[number % 2])
        copy_videos(root, {f"{folder}/{number}{video.suffix}": video})
    _, err = run_main(train.main, *SIZE, *SMALL, "--data.root", root, "--output_dir", run)
    assert "birds: 16 videos to train on, 4 to evaluate on, 2 classes" in err
    assert "init_from" not in err

    run_main(evaluation.main, "--checkpoint", run, "--html", "false")
    found = next(run.glob("evaluation/*/val-center/metrics.json"))
    assert json.loads(found.read_text())["settings"]["data.root"] == str(root)
    out, _ = run_main(prediction.main, root, "--checkpoint", run, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 20
    assert {score["class"] for line in lines for score in line["scores"]} == {"great tit", "wren"}
    run_main(prediction.main, "--checkpoint", run, "--submission", tmp_path / "val.csv")
    with (tmp_path / "val.csv").open(newline="") as file:
        assert len([*csv.DictReader(file)]) == 4
    out, _ = run_main(prepare.main, "--root", root, "--workers", "1")
    assert len(json.loads((root / ".vidtl/report.json").read_text())["splits"]) == 2


def test_large_models_from_scratch_get_advice(folders, tmp_path, run_main):
    options = [*SIZE, *LARGE, "--data.root", folders[1], "--output_dir"]
    advice = "configs/finetune_videomae_b.yaml"
    _, err = run_main(train.main, *options, tmp_path / "scratch")
    assert [line for line in err.splitlines() if advice in line and "2 clips per class" in line]
    _, err = run_main(train.main, *options, tmp_path / "tuned", "--training.init_from", tmp_path / "scratch")
    assert advice not in err


def test_a_single_class_is_refused(folders, tmp_path, run_main):
    (tmp_path / "above/docs").mkdir(parents=True)
    folders[1].rename(tmp_path / "above/videos")
    options = ["--data.root", tmp_path / "above", "--output_dir", tmp_path / "run"]
    _, err = run_main(train.main, *SIZE, *SMALL, *options, code=2)
    assert_refusal(err.splitlines()[-1], "'videos'", "two or more")
