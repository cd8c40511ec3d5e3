"""Kinetics CSV files: the official ones, every layout of the videos, and mistakes."""

import csv
import logging
import shutil
from pathlib import Path

import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import REPOSITORY_DATASETS, load_description, read_records
from vidtl.annotations.records import Records

HEADER = "label,youtube_id,time_start,time_end,split\n"


def write(root: Path, text: str, *videos: str) -> Path:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "val.csv").write_bytes(text.encode())
    for video in videos:
        (root / video).parent.mkdir(parents=True, exist_ok=True)
        (root / video).touch()
    return root


def read(root: Path) -> Records:
    return read_records(load_description("kinetics400"), "val", root)


@pytest.mark.parametrize(("size", "rows"), [(400, 19_906), (600, 30_000)])
def test_official_validation_files(shared_data: Path, tmp_path: Path, size: int, rows: int) -> None:
    official = shared_data / "annotations" / "kinetics" / f"kinetics-{size}_val.csv"
    (tmp_path / "annotations").mkdir()
    shutil.copy(official, tmp_path / "annotations" / "val.csv")
    records = read_records(load_description(f"kinetics{size}"), "val", tmp_path)
    assert len(records) == rows
    assert len(records.classes) == size
    assert records.classes.names == tuple(sorted(records.classes.names))
    assert len(set(records.ids)) == rows
    assert len(missing(records)) == rows
    with official.open(newline="") as stream:
        for index, row in enumerate(csv.DictReader(stream)):
            assert records.classes.names[records.labels(index)[0]] == row["label"]
            assert records.ids[index].startswith(row["youtube_id"])
            assert records.lines[index] == index + 2
    assert set(records.label_classes.tolist()) == set(range(size))  # every committed class name occurs, and no other


def test_official_class_lists_are_the_committed_ones(shared_data: Path) -> None:
    for size in (400, 600, 700):
        official = shared_data / "annotations" / "kinetics" / f"label_map_k{size}.txt"
        committed = REPOSITORY_DATASETS / f"kinetics{size}" / "classes.txt"
        assert committed.read_text().splitlines() == official.read_text().splitlines()


def test_test_files_without_labels_are_told(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    official = shared_data / "annotations" / "kinetics" / "kinetics-400_test.csv"
    shutil.copy(official, tmp_path / "annotations" / "test.csv")
    with refused("test.csv:1", "'label'", "'youtube_id'", "'time_start'"):
        read_records(load_description("kinetics400"), "test", tmp_path)


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ("val/-abcdefghij_000007_000017.mp4", "val/_bcdefghijk_000000_000010.mp4"),
        ("videos_val/-abcdefghij_000007_000017.mkv", "val/_bcdefghijk_000000_000010.mp4"),
        ("val/tying tie/-abcdefghij_000007_000017.webm", "val/air drumming/_bcdefghijk_000000_000010.mp4"),
        ("val/tying_tie/-abcdefghij_000007_000017.mp4", "val/air drumming/_bcdefghijk_000000_000010.mp4"),
        ("val/-abcdefghij.mp4", "val/_bcdefghijk_000000_000010.mp4"),
        (
            "replacement/replacement_for_corrupted_k400/-abcdefghij_000007_000017.mp4",
            "val/_bcdefghijk_000000_000010.mp4",
        ),
    ],
)
def test_layouts(tmp_path: Path, video: str, expected: str) -> None:
    text = HEADER + '"tying tie",-abcdefghij,7,17,val\nair drumming,_bcdefghijk,0.0,10.0,val\n'
    records = read(write(tmp_path, text, video))
    assert records.paths[0] == video
    assert records.paths[1] == expected
    assert missing(records) == [1]
    assert records.segment_starts_s.tolist() == [0, 0]
    assert records.labels_between(0, 100, 101).tolist() == records.labels(0).tolist()


def test_bom_crlf_blank_lines_and_further_columns(tmp_path: Path) -> None:
    lines = [
        "\ufefflabel,youtube_id,time_start,time_end,split,is_cc",
        "",
        "abseiling,a,1,11,val,0",
        "yoga,b,2,12,val,1",
        "",
    ]
    records = read(write(tmp_path, "\r\n".join(lines)))
    assert list(records.ids) == ["a_000001_000011", "b_000002_000012"]
    assert records.lines.tolist() == [3, 4]


def test_two_clips_of_one_video_are_two_records(tmp_path: Path) -> None:
    text = HEADER + "abseiling,a,1,11,val\nyoga,a,12,22,val\n"
    records = read(write(tmp_path, text, "val/a_000001_000011.mp4", "val/a_000012_000022.mp4"))
    assert list(records.paths) == ["val/a_000001_000011.mp4", "val/a_000012_000022.mp4"]


def test_a_file_that_two_clips_share_belongs_to_neither(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = HEADER + "abseiling,a,1,11,val\nyoga,b,1,11,val\nyoga,a,12,22,val\n"
    with caplog.at_level(logging.WARNING, logger="vidtl.annotations.formats.tables"):
        records = read(write(tmp_path, text, "val/a.mp4", "val/b.mp4"))
    assert list(records.paths) == ["val/a_000001_000011.mp4", "val/b.mp4", "val/a_000012_000022.mp4"]
    assert missing(records) == [0, 2]
    assert "val.csv:2: 2 rows share their file with another row, as here 'val/a.mp4'" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("absailing,a,1,11,val", "val.csv:3 | 'absailing' | 'abseiling'"),
        (",a,1,11,val", "val.csv:3 | label"),
        ("yoga,,1,11,val", "val.csv:3 | youtube_id"),
        ("yoga,a,one,11,val", "val.csv:3 | time_start | 'one'"),
        ("yoga,a,nan,11,val", "val.csv:3 | time_start | 'nan'"),
        ("yoga,a,-1,11,val", "val.csv:3 | time_start | '-1'"),
        ("yoga,a,1.5,11,val", "val.csv:3 | time_start | '1.5'"),
        ("yoga,a,11,1,val", "val.csv:3 | time_end is 1"),
        ("yoga,first,1,11,val", "val.csv:3 | 'first_000001_000011' | val.csv:2"),
        ("yoga,../a,1,11,val", "val.csv:3 | 'yoga/../a'"),
        ("yoga,a,1,11", "val.csv:3 | 4 fields | 5"),
        ("yoga,a,1,11,val,more", "val.csv:3 | 6 fields | 5"),
        ('"yoga"x,a,1,11,val', "val.csv:3 | CSV"),
        ('yoga,"a\nb",1,11,val', "val.csv:3 | 'yoga/a\\nb'"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(write(tmp_path, f"{HEADER}abseiling,first,1,11,val\n{row}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "val.csv:1 | 'label'"),
        (HEADER, "val.csv | no row"),
        ("labels" + HEADER[5:], "val.csv:1 | 'label' | 'labels'"),
        (HEADER.replace("split", "label"), "val.csv:1 | 'label'"),
    ],
)
def test_headers_are_checked(tmp_path: Path, text: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(write(tmp_path, text))


def test_text_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    root = write(tmp_path, HEADER)
    (root / "annotations" / "val.csv").write_bytes(HEADER.encode() + b"caf\xe9,a,1,11,val\n")
    with refused("val.csv", "UTF-8"):
        read(root)


def test_short_names_alone_cannot_tell_clips_apart(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "dataset.yaml").write_text(
        "format: kinetics_csv\nlabels: single\nsplits: {val: {annotations: annotations/val.csv}}\nfiles: '{id}.mp4'\n"
    )
    root = write(tmp_path, HEADER + "abseiling,a,1,11,val\nyoga,a,12,22,val\n", "a.mp4")
    with refused("val.csv:3", "'a.mp4'", "val.csv:2"):
        read_records(load_description(str(mine)), "val", root)
