"""Training and evaluation on class folders, also linked or without a description; images as videos of one frame."""

import csv
import json
import shutil

import eval as evaluation
import predict as prediction
import prepare
import pytest
import train
from PIL import Image

from tests.annotations.sets import write
from tests.data.cifar_files import images_and_labels, write_cifar10
from tests.environment import REPOSITORY
from tests.tools.conftest import CLASS_FOLDERS, copy_videos
from tests.training.runs import log_lines


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
    write(tmp_path / "set", {"dataset.yaml": CLASS_FOLDERS})
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
    run_main(train.main, *options, "--output_dir", tmp_path / "second", refused=["'run'", "data.allow_empty_classes"])
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
    run_main(train.main, *SIZE, *SMALL, *options, refused=["'videos'", "two or more"])


TINY = [
    *("--config", str(REPOSITORY / "configs/cifar10_mini_vit.yaml"), "--data.num_workers", "0"),
    *("--model.width", "16", "--model.head_width", "8", "--model.mlp_width", "32"),
    *("--training.batch_size", "20", "--optimizer.learning_rate", "3e-3", "--training.trackers", "[]"),
]


@pytest.mark.parametrize(
    ("form", "options"), [("python", []), ("jpeg_archive", []), ("binary", ["--model.tokenizer", "t2t_performer"])]
)
def test_mini_vit_on_cifar10(run_main, tmp_path, form, options):
    write_cifar10(tmp_path, form)
    places = ["--data.root", tmp_path, "--output_dir", tmp_path / "run"]
    _, error = run_main(train.main, *TINY, *options, *places, "--schedule.length", "4 epochs")
    assert log_lines(tmp_path / "run")[-1]["top1"] > 0.3  # chance is 0.1; each class has another color
    assert "100 videos to train on, 20 to evaluate on, 10 classes" in error


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--data.pixel_format", "planar"], ("images and folders of frames", "'rgb'")),
        (["--model.tokenizer", "t2t_performer", "--model.tubelet", "[1,4,4]"], ("model.tubelet", [1, 4, 4], [1, 6, 6])),
    ],
)
def test_unsuitable_settings(run_main, tmp_path, options, parts):
    write_cifar10(tmp_path, "binary")
    run_main(train.main, *TINY, "--data.root", tmp_path, "--output_dir", tmp_path / "run", *options, refused=parts)


def test_folders_of_images(run_main, tmp_path):
    images, labels = images_and_labels("train", 40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / ("val" if number % 4 == 0 else "train") / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    (tmp_path / "dataset.yaml").write_text(CLASS_FOLDERS)
    options = ["--data.dataset", tmp_path, "--data.root", tmp_path, "--output_dir", tmp_path / "run"]
    run_main(train.main, *TINY, *options, "--schedule.length", "1 epochs")
