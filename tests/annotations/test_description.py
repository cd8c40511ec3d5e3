"""`dataset.yaml`: strict keys, every committed description, lookup by name, classes and parts of splits."""

import dataclasses
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.annotations.sets import make, read, write
from tests.refusals import refused
from vidtl.annotations.description import REPOSITORY_DATASETS, load_description, read_records
from vidtl.annotations.keys import DatasetDescription, SplitDescription
from vidtl.data.protocols import get_protocol

MINIMAL = """
format: labelled_csv
splits:
  train: {annotations: train.csv}
labels: single
"""
CHARADES = MINIMAL.replace("labelled", "charades") + "files: '{id}.mp4'\n"
FRAMES = MINIMAL.replace("labelled_csv", "frame_list") + "classes: c.txt\n"
KINETICS = MINIMAL.replace("labelled", "kinetics")
ROWS = "path,label\na.mp4,run\n"


def describe(tmp_path, text):
    write(tmp_path, {"mine/dataset.yaml": text})
    return tmp_path / "mine"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in REPOSITORY_DATASETS.glob("*/dataset.yaml")))
def test_committed_descriptions_load(name):
    description = load_description(name)
    assert description.name == name
    assert {"train", "val"} <= set(description.splits)  # the default splits of a run
    assert get_protocol(description.protocol).name == description.protocol
    assert (REPOSITORY_DATASETS / name / "README.md").is_file()


def test_a_folder_anywhere_needs_three_keys_only(tmp_path):
    description = load_description(str(describe(tmp_path, MINIMAL)))
    assert (description.name, description.protocol, description.multi_label) == ("mine", "center", False)
    assert description.split("train") == SplitDescription(annotations=("train.csv",), value="train")


def test_names_are_looked_up_in_the_working_directory_first(tmp_path, monkeypatch):
    make(tmp_path, "datasets/other.txt")
    monkeypatch.chdir(tmp_path)
    assert load_description("toy").folder == REPOSITORY_DATASETS / "toy"
    write(tmp_path, {"datasets/toy/dataset.yaml": MINIMAL})
    assert load_description("toy").format == "labelled_csv"


def test_an_unknown_data_set_is_refused_with_the_nearest(tmp_path):
    make(tmp_path, "mine/dataset.yml")
    names = {"kinetics-400": "'kinetics400'", tmp_path / "mime": "'mine'", tmp_path / "mine": "'dataset.yml'"}
    for name, nearest in names.items():
        with refused(Path(name).name, nearest):
            load_description(str(name))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (MINIMAL + "protokol: center", (":6", "'protokol'", "'protocol'")),
        (MINIMAL.replace("annotations", "annotation"), (":4", "'splits.train.annotation'", "annotations'")),
        (MINIMAL.replace("{annotations: train.csv}", "{}"), ("splits.train.annotations",)),
        (MINIMAL.replace("train.csv}", "train.csv, video: x}"), (":4", "splits.train.video'", "videos'")),
        (MINIMAL.replace("labelled_csv", "labeled_csv"), ("format", "'labeled_csv'", "'labelled_csv'")),
        (MINIMAL.replace("single", "several"), ("labels", "'several'", "single, multi")),
        (MINIMAL.replace("train.csv}", "train.csv, part: [0.5]}"), ("splits.train.part", "[0.5]", "[float, float]")),
        (MINIMAL.replace("train.csv}", "train.csv, part: [0.8, 0.2]}"), ("splits.train.part", "[0.8, 0.2]")),
        (MINIMAL + "columns: {lable: class}", ("columns", "'lable'", "'label'")),
        (MINIMAL + "expected: {train: -1}", ("expected.train", "-1", "0 or more")),
        (MINIMAL + "expected: {trian: 3}", ("expected", "'trian'", "train")),
        (MINIMAL + "frame_rate: 0", ("frame_rate", "0.0", "above 0")),
        (MINIMAL + "time_unit: frames", ("time_unit", "'frames'", "frame_rate")),
        (MINIMAL + "files: ['{path}.mp4', a.mp4]", ("files", "'a.mp4'", "fields")),
        (MINIMAL + "files: '{path}_{start:06d}.mp4'", ("files", "'{path}_{start:06d}.mp4'")),
        (MINIMAL + "files: '{path}_{start*x}.mp4'", ("files", "'{path}_{start*x}.mp4'", "'start*x'")),
        (MINIMAL + "group: '{group}_{a.b}'", ("group", "'{group}_{a.b}'", "'a.b'")),
        (MINIMAL + "group: 'v_{other}'", ("group", "'v_{other}'", "{group}")),
        (MINIMAL + "fields: [path, label]", ("fields", "['path', 'label']", "none")),
        (MINIMAL + "folder: here", ("folder", "'here'")),
        (MINIMAL.replace("train.csv", "../train.csv"), ("splits.train.annotations", "'../train.csv'")),
        (MINIMAL.replace("labelled_csv", "cifar10"), ("splits.train.annotations", "['train.csv']", "cifar10")),
        (MINIMAL + "classes: /etc/../passwd", ("classes", "etc/../passwd'")),
        ("format: labelled_csv\nlabels: single\nsplits: {}", ("splits", "{}", "at least one")),
        (CHARADES, ("charades_csv", "classes")),
        (CHARADES + "classes: c.txt", ("labels", "'single'", "charades_csv", "'multi'")),
        (FRAMES.replace("single", "multi"), ("frame_rate is None", "frame_list")),
        (KINETICS, ("files", "[]")),
        (KINETICS + "files: '{ids}.mp4'", ("files", "'ids'", "'id'")),
        (KINETICS + "files: '{id:06d}.mp4'", ("files", "'{id:06d}.mp4'")),
        (KINETICS + "files: '{id.mp4'", ("files", "'{id.mp4'")),
        (KINETICS + "files: '../{id}.mp4'", ("files", "'../id.mp4'")),
        (KINETICS + "files: '{label:>1000000000}/{id}.mp4'", ("files", "'label'", "20 digits")),
        (KINETICS + "files: '{id}_{start:021d}.mp4'", ("files", "'start'", "20 digits")),
        (KINETICS + "files: '{id!r}.mp4'", ("files", "'id'")),
        (KINETICS + "files: '{label:{id}}.mp4'", ("files", "'label'")),
        (MINIMAL + f"files: {['{a}'] * 1001}", ("splits.train.", "1001", "1000")),
        (MINIMAL.replace("{annotations", "{videos: " + str(["v"] * 1001) + ", annotations"), ("train.videos", "1001")),
    ],
)
def test_mistakes_name_file_key_and_value(tmp_path, text, parts):
    with refused("dataset.yaml", *parts):
        load_description(str(describe(tmp_path, text)))


def test_root_and_files_are_checked(tmp_path):
    mine, root = describe(tmp_path, MINIMAL + "classes: names.txt"), tmp_path / "root"
    with refused("data.root", "'root'"):
        read(mine, "train", root)
    root.touch()
    with refused(root, "is a file"):
        read(mine, "train", root)
    root.unlink()
    write(root, {"train_.csv": ROWS})
    with refused("'tran'", "'train'"):
        read(mine, "tran", root)
    with refused("file of class names"):
        read(mine, "train", root)
    write(root, {"names.txt": "run\nsit\n\n"})
    with refused("'train.csv'", "'train_.csv'"):
        read(mine, "train", root)
    write(root, {"train.csv": ROWS})
    assert read(mine, "train", root).classes.names == ("run", "sit")
    write(mine, {"names.txt": "sit\nrun\n"})  # preferred to that of the root
    assert read(mine, "train", root).classes.names == ("sit", "run")


def test_without_a_list_classes_are_those_of_all_splits(tmp_path):
    mine = describe(tmp_path, MINIMAL.replace("labels: single", "  val: {annotations: val.csv}\nlabels: single"))
    write(tmp_path, {"train.csv": ROWS + "b.mp4,walk\n", "val.csv": "path,label\nc.mp4,sit\n"})
    assert all(read(mine, split, tmp_path).classes.names == ("run", "sit", "walk") for split in ("train", "val"))


def test_another_count_than_the_official_one_is_logged(tmp_path, caplog):
    write(tmp_path, {"train.csv": ROWS})
    read(describe(tmp_path, MINIMAL + "expected: {train: 1}"), "train", tmp_path)
    assert not caplog.messages
    read(describe(tmp_path, MINIMAL + "expected: {train: 2}"), "train", tmp_path)
    assert [part in caplog.messages[0] for part in (str(tmp_path / "train.csv"), "1", "2")] == [True] * 3


def test_parts_of_a_split_are_random_and_fixed(tmp_path):
    write(tmp_path, {"train.csv": "path,label\n" + "".join(f"{number:02d}.mp4,walk\n" for number in range(20))})
    splits = {"all": "[0, 1]", "most": "[0, 0.75]", "rest": "[0.75, 1]", "none": "[0.99, 1]"}
    rows = "".join(f"  {name}: {{annotations: train.csv, part: {part}}}\n" for name, part in splits.items())
    mine = describe(tmp_path, f"format: labelled_csv\nlabels: single\nsplits:\n{rows}")
    every, most, rest = (list(read(mine, split, tmp_path).paths) for split in ("all", "most", "rest"))
    assert sorted(most + rest) == every
    assert rest == ["03.mp4", "09.mp4", "10.mp4", "17.mp4", "19.mp4"]
    with refused("train.csv", "[0.99, 1.0]"):
        read(mine, "none", tmp_path)


def test_missing_permission_is_a_user_error(tmp_path, monkeypatch):
    write(tmp_path, {"train.csv": ROWS})
    description = load_description(str(describe(tmp_path, MINIMAL)))
    error = PermissionError(13, "Permission denied", "train.csv")  # simulated: root may read everything
    monkeypatch.setattr(Path, "open", Mock(side_effect=error))
    with refused("train.csv", "Permission denied"):
        read_records(description, "train", tmp_path)


def test_the_readme_has_a_working_example_and_every_key(tmp_path):
    text = (REPOSITORY_DATASETS / "README.md").read_text()
    description, table = (block.split("```")[0].split("\n", 1)[1] for block in text.split("```")[3:6:2])
    write(tmp_path, {"labels.csv": table})
    records = read(describe(tmp_path, description), "val", tmp_path)
    assert records.classes.names == ("judo", "rowing")
    assert list(records.paths) == ["clips/a, b.webm"]
    keys = {field.name for kind in (DatasetDescription, SplitDescription) for field in dataclasses.fields(kind)}
    assert {key for key in keys - {"folder"} if f"`{key}`" not in text} == set()
