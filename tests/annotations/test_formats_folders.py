"""A folder per class, with videos, images and folders of frames."""

import logging
import os
from pathlib import Path

import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_a_folder_per_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "train/run/b.mp4", "train/run/a b.AVI", "train/sit/2/000001.jpg", "train/sit/.DS_Store")
    make(tmp_path, "train/sit/notes.txt", "val/walk/c.webm", "val/run/d.JPEG")
    (tmp_path / "dataset.yaml").write_text(
        "format: class_folders\nlabels: single\nframe_rate: 25\nsplits: {train: {videos: train}, val: {videos: val}}\n"
    )
    description = load_description(str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="vidtl.annotations.formats.folders"):
        train = read_records(description, "train", tmp_path)
    val = read_records(description, "val", tmp_path)
    assert train.classes.names == val.classes.names == ("run", "sit", "walk")  # of all splits
    assert list(train.paths) == ["train/run/a b.AVI", "train/run/b.mp4", "train/sit/2"]
    assert train.label_classes.tolist() == [0, 0, 1]
    assert list(val.ids) == ["val/run/d.JPEG", "val/walk/c.webm"]
    assert val.label_classes.tolist() == [0, 2]
    assert "1 files are neither videos nor images, as" in caplog.text
    assert "notes.txt" in caplog.text
    assert missing(train) == []
    assert train.origin(1) == str(tmp_path / "train/run/b.mp4")


def test_image_folders_as_imagenet(tmp_path: Path) -> None:
    make(tmp_path, "train/n01440764/n01440764_10026.JPEG", "train/n01443537/n01443537_2.JPEG")
    make(tmp_path, "val/n01443537/ILSVRC2012_val_00000001.JPEG")
    records = read_records(load_description("imagenet1k"), "val", tmp_path)
    assert records.classes.names == ("n01440764", "n01443537")
    assert records.label_classes.tolist() == [1]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    description = load_description("imagenet1k")
    with refused("'train'"):
        read_records(description, "train", tmp_path)
    make(tmp_path, "train/run/a.mp4", "val")
    with refused("val", "is a file"):
        read_records(description, "val", tmp_path)
    (tmp_path / "val").unlink()
    (tmp_path / "val").mkdir()
    with refused("val", "no folders"):
        read_records(description, "train", tmp_path)
    (tmp_path / "train/run/a.mp4").rename(tmp_path / "train/run/.hidden")
    make(tmp_path, "val/run/a.mp4")
    with refused("train", "no row"):
        read_records(description, "train", tmp_path)


def test_a_class_that_is_not_listed_is_named(tmp_path: Path) -> None:
    make(tmp_path, "all/run/a.mp4", "all/sitt/b.mp4")
    (tmp_path / "classes.txt").write_text("run\nsit\n")
    (tmp_path / "dataset.yaml").write_text(
        "format: class_folders\nlabels: single\nclasses: classes.txt\nsplits: {train: {videos: all}}\n"
    )
    with refused("all", "'sitt'", "'sit'"):
        read_records(load_description(str(tmp_path)), "train", tmp_path)
    (tmp_path / "dataset.yaml").write_text(
        "format: class_folders\nlabels: single\nsplits: {train: {annotations: a.txt, videos: all}}\n"
    )
    with refused("dataset.yaml", "splits.train.annotations", ["a.txt"]):
        load_description(str(tmp_path))


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    make(tmp_path, "train/run/a.mp4", "val/run/a.mp4")
    (tmp_path / "train/run" / os.fsdecode(b"caf\xe9.mp4")).touch()
    with refused("train", "UTF-8"):
        read_records(load_description("imagenet1k"), "train", tmp_path)
