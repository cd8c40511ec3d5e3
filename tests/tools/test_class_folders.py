"""Training and evaluation on nested class folders, some of them links."""

import shutil
from pathlib import Path

import pytest
import train

from tests.environment import RunMain
from tests.refusals import assert_refusal


@pytest.fixture
def folders(toy: Path, tmp_path: Path) -> tuple[Path, Path]:
    """`class/subject/clip`, one class beside and below, one on another disk: a description and its root."""
    videos = sorted((toy / "videos/val").iterdir())
    places = ("walk/s1/a.mp4", "walk/s2/b.mp4", "run/c.mp4", "run/more/d.MP4")
    for split in ("train", "val"):
        for video, place in zip(videos, places, strict=False):
            target = tmp_path / "root" / split / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, target)
    shutil.move(tmp_path / "root/train/run", tmp_path / "disk")
    (tmp_path / "root/train/run").symlink_to(tmp_path / "disk")
    (tmp_path / "root/train/walk/s1/loop").symlink_to("/")
    (tmp_path / "set").mkdir()
    splits = "splits: {train: {videos: train}, val: {videos: val}}"
    (tmp_path / "set/dataset.yaml").write_text(f"format: class_folders\nlabels: single\n{splits}\n")
    return tmp_path / "set", tmp_path / "root"


def test_all_are_trained_on_and_a_class_that_loses_its_clips_ends_the_run_unless_allowed(
    folders: tuple[Path, Path], tmp_path: Path, run_main: RunMain, tiny: list[str]
) -> None:
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
