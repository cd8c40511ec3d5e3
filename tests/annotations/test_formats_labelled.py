"""CSV files of one's own, and the Surveillance Camera Fight Dataset through one."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records


def read(tmp_path: Path, rows: str, description: str = "labels: single", split: str = "train") -> Records:
    (tmp_path / "dataset.yaml").write_text(
        "format: labelled_csv\nsplits:\n  train: {annotations: all.csv, videos: clips}\n"
        f"  held_out: {{annotations: all.csv, videos: clips, value: val}}\n{description}\n"
    )
    (tmp_path / "all.csv").write_text(rows)
    return read_records(load_description(str(tmp_path)), split, tmp_path)


def test_fight_surv(shared_data: Path) -> None:
    root = shared_data / "fight_surv"
    description = load_description("fight_surv")
    splits = {name: read_records(description, name, root) for name in ("train", "val")}
    assert {name: len(records) for name, records in splits.items()} == {"train": 126, "val": 35}
    with (root / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 161
    for name, records in splits.items():
        assert records.classes.names == ("fight", "noFight")
        assert missing(records) == []
        expected = [(row["path"], row["label"]) for row in rows if row["suggested_split"] == name]
        read = [(records.paths[i], records.classes.names[records.labels(i)[0]]) for i in range(len(records))]
        assert read == expected


def test_single_label_rows(tmp_path: Path) -> None:
    records = read(tmp_path, 'path,label\na.mp4,sit\n"./x/b, c.mp4",run\n')
    assert list(records.ids) == list(records.paths) == ["clips/a.mp4", "clips/x/b, c.mp4"]
    assert records.classes.names == ("run", "sit")
    assert records.segment_ends_s.tolist() == [np.inf, np.inf]


def test_single_label_rows_may_be_parts_of_files(tmp_path: Path) -> None:
    rows = "path,label,from,to\na.mp4,sit,2.5,4\na.mp4,run,4,\na.mp4,run,,1\nb.mp4,run,,\n"
    records = read(tmp_path, rows, "labels: single\ncolumns: {start: from, end: to}")
    assert list(records.ids) == ["clips/a.mp4#t=2.5,4", "clips/a.mp4#t=4", "clips/a.mp4#t=0,1", "clips/b.mp4"]
    assert list(records.paths) == ["clips/a.mp4"] * 3 + ["clips/b.mp4"]
    assert records.segment_starts_s.tolist() == [2.5, 4, 0, 0]
    assert records.segment_ends_s.tolist() == [4, np.inf, 1, np.inf]


def test_multi_label_rows_of_one_file_are_one_record(tmp_path: Path) -> None:
    rows = "path,label,from,to\na.mp4,sit; talk,2,4\nb.mp4,,,\na.mp4,run,5,6\na.mp4,talk,,\n"
    records = read(tmp_path, rows, "labels: multi\ncolumns: {start: from, end: to}")
    assert list(records.ids) == ["clips/a.mp4", "clips/b.mp4"]
    assert records.classes.names == ("run", "sit", "talk")
    assert records.targets(0).tolist() == [1, 1, 1]
    assert records.targets(0, 2, 3).tolist() == [0, 1, 1]
    assert records.targets(0, 5.1, 5.2).tolist() == [1, 0, 1]
    assert records.targets(0, 8, 9).tolist() == [0, 0, 1]
    assert records.targets(1).tolist() == [0, 0, 0]
    assert records.lines.tolist() == [2, 3]


def test_splits_by_a_column(tmp_path: Path) -> None:
    rows = "path,label,part\na.mp4,sit,train\nb.mp4,run,val\nc.mp4,run,train\n"
    description = "labels: single\ncolumns: {split: part}"
    assert list(read(tmp_path, rows, description).ids) == ["clips/a.mp4", "clips/c.mp4"]
    held_out = read(tmp_path, rows, description, "held_out")
    assert list(held_out.ids) == ["clips/b.mp4"]
    assert held_out.classes.names == ("run", "sit")


def test_aliases_are_other_spellings(tmp_path: Path) -> None:
    records = read(tmp_path, "path,label\na.mp4,Sitting\nb.mp4,sit\n", "labels: single\naliases: {Sitting: sit}")
    assert records.classes.names == ("sit",)


SPLIT = "labels: single\ncolumns: {split: part}"
TIMES = "labels: single\ncolumns: {start: from, end: to}"
MULTI = "labels: multi"


@pytest.mark.parametrize(
    ("rows", "description", "message"),
    [
        (
            "path,labels\na,b\n",
            "labels: single",
            "all.csv:1 | 'label' | 'path' | 'labels'",
        ),
        ("path,label\na.mp4,\n", "labels: single", "all.csv:2 | label"),
        ("path,label\na.mp4,x;;y\n", MULTI, "all.csv:2 | label"),
        ("path,label\na.mp4,x\na.mp4,x\n", "labels: single", "all.csv:3 | 'clips/a.mp4' | all.csv:2"),
        ("path,label\n/etc/a.mp4,x\n", "labels: single", "all.csv:2 | '/etc/a.mp4'"),
        ("path,label\na/../../b.mp4,x\n", "labels: single", "all.csv:2 | path"),
        ("path,label\nhttp://x/b.mp4,x\n", "labels: single", "all.csv:2 | path"),
        ("path,label,part\na.mp4,x,trian\n", SPLIT, "all.csv:2 | part | 'trian' | 'train'"),
        ("path,label,part\na.mp4,x,val\n", SPLIT, "all.csv | no row"),
        ("path,label,from,to\na.mp4,x,soon,1\n", TIMES, "all.csv:2 | from | 'soon'"),
        ("path,label,from,to\na.mp4,x,2,1\n", TIMES, "all.csv:2 | to is 1"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, rows: str, description: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(tmp_path, rows, description)
