"""`dataset.yaml`: strict keys, every committed description, and how a run names a data set."""

import dataclasses
import logging
from pathlib import Path

import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import (
    REPOSITORY_DATASETS,
    DatasetDescription,
    SplitDescription,
    load_description,
    read_records,
)
from vidtl.data.protocols import get_protocol

MINIMAL = """
format: labelled_csv
splits:
  train: {annotations: train.csv}
labels: single
"""


def describe(tmp_path: Path, text: str) -> str:
    folder = tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "dataset.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    "folder", sorted(REPOSITORY_DATASETS.glob("*/dataset.yaml")), ids=lambda path: path.parent.name
)
def test_committed_descriptions_load(folder: Path) -> None:
    description = load_description(folder.parent.name)
    assert description.name == folder.parent.name
    assert {"train", "val"} <= set(description.splits)  # the splits of a run that names none
    assert get_protocol(description.protocol).name == description.protocol
    assert (folder.parent / "README.md").is_file()
    assert not list(folder.parent.glob("*.py"))


def test_a_folder_anywhere_needs_three_keys_only(tmp_path: Path) -> None:
    description = load_description(describe(tmp_path, MINIMAL))
    assert description.name == "mine"
    assert description.protocol == "center"
    assert not description.multi_label
    assert description.split("train").annotations == ("train.csv",)
    assert description.split("train").videos == (".",)


def test_names_are_looked_up_beside_the_run_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_description("toy").folder == REPOSITORY_DATASETS / "toy"
    (tmp_path / "datasets" / "toy").mkdir()
    (tmp_path / "datasets" / "toy" / "dataset.yaml").write_text(MINIMAL)
    assert load_description("toy").format == "labelled_csv"


def test_an_unknown_data_set_is_told_with_the_nearest(tmp_path: Path) -> None:
    with refused("'kinetics-400'", "'kinetics400'"):
        load_description("kinetics-400")
    (tmp_path / "mine").mkdir()
    with refused("'mime'", "'mine'"):
        load_description(str(tmp_path / "mime"))
    (tmp_path / "mine" / "dataset.yml").touch()
    with refused("'dataset.yaml'", "'dataset.yml'"):
        load_description(str(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (MINIMAL + "protokol: center", (":6", "'protokol'", "'protocol'")),
        (MINIMAL.replace("annotations", "annotation"), (":4", "'splits.train.annotation'", "annotations'")),
        (MINIMAL.replace("{annotations: train.csv}", "{}"), ("splits.train.annotations",)),
        (MINIMAL.replace("train.csv}", "train.csv, video: x}"), (":4", "splits.train.video'", "videos'")),
        (MINIMAL.replace("labelled_csv", "labeled_csv"), ("format", "'labeled_csv'", "'labelled_csv'")),
        (MINIMAL.replace("labels: single", ""), ("labels", "missing")),
        (MINIMAL.replace("single", "several"), ("labels", "'several'", "single, multi")),
        (
            MINIMAL.replace("train.csv}", "train.csv, part: [0.5]}"),
            ("splits.train.part", "[0.5]", "tuple[float, float]"),
        ),
        (MINIMAL.replace("train.csv}", "train.csv, part: [0.8, 0.2]}"), ("splits.train.part", "[0.8, 0.2]")),
        (MINIMAL.replace("train.csv}", "train.csv, part: [0, 2]}"), ("splits.train.part", "[0.0, 2.0]")),
        (MINIMAL + "columns: {lable: class}", ("columns", "'lable'", "'label'")),
        (MINIMAL + "columns: {label: [a]}", ("columns.label", "['a']", "str")),
        (MINIMAL + "expected: {train: many}", ("expected.train", "'many'", "int")),
        (MINIMAL + "expected: {train: -1}", ("expected.train", "-1", "0 or more")),
        (MINIMAL + "expected: {trian: 3}", ("expected", "'trian'", "train")),
        (MINIMAL + "frame_rate: 0", ("frame_rate", "0.0", "above 0")),
        (MINIMAL + "files: a.mp4", ("files", "['a.mp4']", "none")),
        (MINIMAL + "fields: [path, label]", ("fields", "['path', 'label']", "none")),
        (MINIMAL + "folder: here", ("folder", "'here'")),
        (MINIMAL.replace("train.csv", "../train.csv"), ("splits.train.annotations", "'../train.csv'")),
        (MINIMAL.replace("labelled_csv", "cifar10"), ("splits.train.annotations", "['train.csv']", "cifar10")),
        (MINIMAL + "classes: /etc/passwd", ("classes", "'/etc/passwd'")),
        ("format: labelled_csv\nlabels: single\nsplits: {}", ("splits", "{}", "at least one")),
        (MINIMAL.replace("labelled", "charades") + "files: '{id}.mp4'", ("charades_csv", "classes")),
        (
            MINIMAL.replace("labelled", "charades") + "files: '{id}.mp4'\nclasses: c.txt",
            ("labels", "'single'", "charades_csv", "'multi'"),
        ),
        (MINIMAL.replace("labelled_csv", "gmdcsa24"), ("labels", "'single'", "gmdcsa24", "'multi'")),
        (MINIMAL.replace("labelled", "kinetics"), ("files", "[]")),
        (MINIMAL.replace("labelled", "kinetics") + "files: '{ids}.mp4'", ("files", "'ids'", "'id'")),
        (MINIMAL.replace("labelled", "kinetics") + "files: '{id.x}.mp4'", ("files", "'id.x'", "'id'")),
        (MINIMAL.replace("labelled", "kinetics") + "files: '{id:06d}.mp4'", ("files", "'{id:06d}.mp4'")),
        (MINIMAL.replace("labelled", "kinetics") + "files: '{id.mp4'", ("files", "'{id.mp4'")),
        (MINIMAL.replace("labelled", "kinetics") + "files: '../{id}.mp4'", ("files", "'../id.mp4'")),
    ],
)
def test_mistakes_name_file_key_and_value(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    with refused("dataset.yaml", *parts):
        load_description(describe(tmp_path, text))


def test_root_and_files_are_checked(tmp_path: Path) -> None:
    description = load_description(describe(tmp_path, MINIMAL + "classes: names.txt"))
    root = tmp_path / "root"
    with refused("data.root", "'root'"):
        read_records(description, "train", root)
    root.touch()
    with refused("data.root", root):
        read_records(description, "train", root)
    root.unlink()
    root.mkdir()
    with refused("'tran'", "'train'"):
        read_records(description, "tran", root)
    with refused("file of class names"):
        read_records(description, "train", root)
    (root / "names.txt").write_text("run\nsit\n\n")
    (root / "train_.csv").touch()
    with refused("'train.csv'", "'train_.csv'"):
        read_records(description, "train", root)
    (root / "train.csv").write_text("path,label\na.mp4,run\n")
    assert read_records(description, "train", root).classes.names == ("run", "sit")


def test_class_names_beside_the_description_win(tmp_path: Path) -> None:
    folder = Path(describe(tmp_path, MINIMAL + "classes: names.txt"))
    (folder / "names.txt").write_text("sit\nrun\n")
    (tmp_path / "names.txt").write_text("run\n")
    (tmp_path / "train.csv").write_text("path,label\na.mp4,run\n")
    assert read_records(load_description(str(folder)), "train", tmp_path).classes.names == ("sit", "run")
    (folder / "names.txt").write_text("sit\nrun\nsit\n")
    with refused("names.txt", "'sit'"):
        read_records(load_description(str(folder)), "train", tmp_path)


def test_without_a_list_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    text = MINIMAL.replace("labels: single", "  val: {annotations: val.csv}\nlabels: single")
    (tmp_path / "train.csv").write_text("path,label\na.mp4,walk\nb.mp4,run\n")
    (tmp_path / "val.csv").write_text("path,label\nc.mp4,sit\n")
    description = load_description(describe(tmp_path, text))
    for split in ("train", "val"):
        assert read_records(description, split, tmp_path).classes.names == ("run", "sit", "walk")


def test_another_count_than_the_official_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "train.csv").write_text("path,label\na.mp4,walk\n")
    with caplog.at_level(logging.WARNING):
        read_records(load_description(describe(tmp_path, MINIMAL + "expected: {train: 1}")), "train", tmp_path)
        assert not caplog.messages
        read_records(load_description(describe(tmp_path, MINIMAL + "expected: {train: 2}")), "train", tmp_path)
    assert caplog.messages == [f"{tmp_path / 'train.csv'} lists 1 videos, mine has 2"]


def test_parts_of_a_split_share_it_out_at_random_and_for_good(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path,label\n" + "".join(f"{number:02d}.mp4,walk\n" for number in range(20)))
    text = """format: labelled_csv
labels: single
splits:
  all: {annotations: train.csv}
  most: {annotations: train.csv, part: [0, 0.75]}
  rest: {annotations: train.csv, part: [0.75, 1]}
"""
    description = load_description(describe(tmp_path, text))
    paths = {split: list(read_records(description, split, tmp_path).paths) for split in description.splits}
    assert sorted(paths["most"] + paths["rest"]) == paths["all"]
    assert paths["rest"] == ["03.mp4", "09.mp4", "10.mp4", "17.mp4", "19.mp4"]
    description = load_description(describe(tmp_path, text.replace("[0.75, 1]", "[0.99, 1]")))
    with refused("train.csv", "[0.99, 1.0]"):
        read_records(description, "rest", tmp_path)


def test_no_right_to_read_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may read everything, so the refusal is made up."""
    (tmp_path / "train.csv").write_text("path,label\na.mp4,walk\n")
    description = load_description(describe(tmp_path, MINIMAL))

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with refused("train.csv", "Permission denied"):
        read_records(description, "train", tmp_path)


def test_absent_videos_are_found_by_listing(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path,label\nsub/a.mp4,walk\nb.mp4,walk\nnowhere/c.mp4,walk\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.mp4").touch()
    records = read_records(load_description(describe(tmp_path, MINIMAL)), "train", tmp_path)
    assert list(records.paths) == ["sub/a.mp4", "b.mp4", "nowhere/c.mp4"]
    assert missing(records) == [1, 2]


def test_the_example_of_the_readme_works(tmp_path: Path) -> None:
    text = (REPOSITORY_DATASETS / "README.md").read_text()
    description, table = (block.split("```")[0].split("\n", 1)[1] for block in text.split("```")[3:6:2])
    (tmp_path / "labels.csv").write_text(table)
    records = read_records(load_description(describe(tmp_path, description)), "val", tmp_path)
    assert records.classes.names == ("judo", "rowing")
    assert list(records.paths) == ["clips/a, b.webm"]


def test_every_key_is_in_the_readme() -> None:
    text = (REPOSITORY_DATASETS / "README.md").read_text()
    keys = {field.name for kind in (DatasetDescription, SplitDescription) for field in dataclasses.fields(kind)}
    assert {key for key in keys - {"folder"} if f"`{key}`" not in text} == set()
