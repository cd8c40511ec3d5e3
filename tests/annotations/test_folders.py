"""A folder per class, with videos, images and folders of frames."""

import os
import shutil

import pytest

from tests.annotations.sets import make, missing, names, read, write
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_splits

DESCRIPTION = """format: class_folders
labels: single
frame_rate: 25
splits: {train: {videos: train}, val: {videos: val}}
"""


def test_class_folders_are_walked_down(tmp_path, caplog):
    make(tmp_path, "train/run/s1/b.MTS", "train/run/s1/a b.y4m", "train/run/s2/deep/c.vob", "train/run/z.mp4")
    make(tmp_path, *(f"train/sit/clip/{number}.jpg" for number in (1, 2)), "train/sit/0.JPG", "train/sit/1.jpg")
    make(tmp_path, "train/run/s1/a.jpg", "train/run/s1/notes.txt", "train/stray.mp4", "train/run/.trash/d.mp4")
    make(tmp_path, "train/stand/readme", "val/walk/d.webm", "val/run/e.JPEG")
    write(tmp_path, {"dataset.yaml": DESCRIPTION})
    records, val = (read(tmp_path, split, tmp_path) for split in ("train", "val"))
    assert records.classes.names == val.classes.names == ("run", "sit", "walk")  # of all splits
    assert (list(val.ids), names(val)) == (["val/run/e.JPEG", "val/walk/d.webm"], ["run", "walk"])
    assert (missing(records), records.origin(3)) == ([], str(tmp_path / "train/run/z.mp4"))
    run = ["s1/a b.y4m", "s1/b.MTS", "s2/deep/c.vob", "z.mp4"]
    assert [*records.ids] == [f"train/run/{name}" for name in run] + [
        f"train/sit/{n}" for n in ("0.JPG", "1.jpg", "clip")
    ]
    assert names(records) == ["run"] * 4 + ["sit"] * 3
    assert "1 class folders without videos, as stand" in caplog.text
    assert "4 files or links are no videos" in caplog.text  # a cover, notes, a video without class, readme


def test_missing_and_empty_folders_are_refused(tmp_path):
    with refused("'train'"):
        read("imagenet1k", "train", tmp_path)
    make(tmp_path, "train/run/a.mp4", "val")
    with refused("val", "Not a directory"):
        read("imagenet1k", "val", tmp_path)
    (tmp_path / "val").unlink()
    (tmp_path / "val").mkdir()
    with refused("val", "no folders"):
        read("imagenet1k", "train", tmp_path)
    (tmp_path / "train/run/a.mp4").rename(tmp_path / "train/run/.hidden")
    make(tmp_path, "val/run/a.mp4")
    with refused("train", "no row"):
        read("imagenet1k", "train", tmp_path)


def of_root(root, *splits):
    """Class folders, and paths by split, of a root without `dataset.yaml`."""
    splits = read_splits(load_description("", root), splits, root)
    return splits["train"].classes.names, {name: list(records.paths) for name, records in splits.items()}


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test"])
def test_folders_of_splits_need_no_description(tmp_path, caplog, folder):
    caplog.set_level("INFO")
    make(tmp_path, "train/run/s1/a.mp4", "train/sit/b.mp4", f"{folder}/run/c.mp4", ".vidtl/x", "a.csv", "intro.mp4")
    paths = {"train": ["train/run/s1/a.mp4", "train/sit/b.mp4"], "val": [f"{folder}/run/c.mp4"]}
    assert of_root(tmp_path, "train", "val") == (("run", "sit"), paths)
    assert (f"'{folder}' is evaluated" in caplog.text) == (folder != "val")


def test_further_folders_are_a_test_split_or_named(tmp_path, caplog):
    caplog.set_level("INFO")
    make(tmp_path, "train/run/a.mp4", "valid/run/b.mp4", "validation/run/c.mp4", "test/sit/d.mp4")
    paths = {"train": ["train/run/a.mp4"], "val": ["valid/run/b.mp4"], "test": ["test/sit/d.mp4"]}
    assert of_root(tmp_path, *paths) == (("run", "sit"), paths)
    assert "'validation'" in caplog.text
    shutil.move(tmp_path / "test/sit/d.mp4", tmp_path / "test/d.mp4")  # without labels
    (tmp_path / "test/sit").rmdir()
    assert of_root(tmp_path, "train", "val")[0] == ("run",)


def test_the_folder_of_train_alone_is_a_split_or_a_class(tmp_path):
    make(tmp_path, "train/run/a.mp4", *(f"bus/{number}.mp4" for number in range(4)))
    assert [*load_description("", tmp_path).splits] == ["train"]
    shutil.move(tmp_path / "train/run/a.mp4", tmp_path / "train/a.mp4")
    (tmp_path / "train/run").rmdir()
    assert of_root(tmp_path, "train", "val")[0] == ("bus", "train")


def test_one_folder_of_classes_is_split_alike_in_every_run(tmp_path, caplog):
    for place in (tmp_path / "a", tmp_path / "b"):
        make(place, *(f"{label}/v_{label}_g01_c{number:02d}.mp4" for label in ("sit", "run") for number in range(20)))
    classes, paths = of_root(tmp_path / "a", "train", "val")
    assert classes == ("run", "sit")
    assert (len(paths["train"]), len(paths["val"]), len({*paths["train"], *paths["val"]})) == (32, 8, 40)
    assert "one recording" in caplog.text
    assert of_root(tmp_path / "b", "val", "train")[1] == paths


def test_a_description_in_the_root_is_used(tmp_path):
    make(tmp_path, "a/run/1.mp4", "a/sit/2.mp4", "train/run/x.mp4")
    write(tmp_path, {"dataset.yaml": "format: class_folders\nlabels: single\nsplits: {train: {videos: a}}\n"})
    assert of_root(tmp_path, "train")[1] == {"train": ["a/run/1.mp4", "a/sit/2.mp4"]}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        (("notes.txt",), ("no folders", "train/CLASS")),
        (("a.mp4", "run/b.mp4", "sit/c.mp4"), ("'a.mp4'", "train/CLASS")),
        (("videos/a.mp4",), ("'videos'", "train/CLASS")),
        (("train/a.mp4",), ("'train'", "train/CLASS")),
        (("train/a.mp4", "val/b.mp4"), ("train", "no folders")),
    ],
)
def test_a_root_without_class_folders_is_refused(tmp_path, files, parts):
    make(tmp_path / "birds", *files)
    with refused("birds", *parts):
        of_root(tmp_path / "birds", "train", "val")
    with refused("data.root", "'bird'", "'birds'"):
        load_description("", tmp_path / "bird")


def test_an_unknown_class_is_refused(tmp_path):
    make(tmp_path, "train/run/a.mp4", "train/sitt/b.mp4")
    write(tmp_path, {"classes.txt": "run\nsit\n", "dataset.yaml": DESCRIPTION + "classes: classes.txt\n"})
    with refused("train", "'sitt'", "'sit'"):
        read(tmp_path, "train", tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    make(tmp_path, "train/run/a.mp4", "val/run/a.mp4", f"train/run/{os.fsdecode(bytes([0xE9]))}.mp4")
    with refused("train", "UTF-8"):
        read("imagenet1k", "train", tmp_path)
