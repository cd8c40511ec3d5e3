"""Charades CSV files with all their peculiarities, generated."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.formats import READERS
from vidtl.annotations.formats.source import AnnotationSource
from vidtl.annotations.layout import VideoFinder
from vidtl.annotations.records import ClassNames, Records
from vidtl.errors import UserError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\r\n"
CLASSES = "c000 Holding some clothes\r\nc001 Opening a door\r\nc002 Smiling at a book\r\n"


def row(video_id: str, actions: str, length: str = "10.00") -> str:
    return f'{video_id},P001,Kitchen,6,7,Yes,"A person, who ""waits"".",door;book,One.;Two.,{actions},{length}\r\n'


def read(root: Path, rows: str, classes: str = CLASSES) -> Records:
    (root / "Charades_v1_classes.txt").write_bytes(classes.encode())
    (root / "Charades_v1_train.csv").write_bytes((HEADER + rows).encode())
    return read_records(load_description("charades"), "train", root)


def segments(records: Records, index: int) -> list[tuple[int, float, float]]:
    part = slice(records.label_offsets[index], records.label_offsets[index + 1])
    columns = (records.label_classes, records.label_starts_s, records.label_ends_s)
    return [
        (int(a), round(float(b), 3), round(float(c), 3)) for a, b, c in zip(*(x[part] for x in columns), strict=True)
    ]


def test_actions_with_times(tmp_path: Path) -> None:
    records = read(tmp_path, row("46GP8", "c002 1.90 7.20;c000 0.00 4.60") + row("N11GT", "c001 0 10"))
    assert records.multi_label
    assert records.classes.names == ("Holding some clothes", "Opening a door", "Smiling at a book")
    assert list(records.ids) == ["46GP8", "N11GT"]
    assert segments(records, 0) == [(2, 1.9, 7.2), (0, 0, 4.6)]
    assert records.targets(0).tolist() == [1, 0, 1]
    assert records.targets(0, 5, 6).tolist() == [0, 0, 1]
    assert records.lines.tolist() == [2, 3]


def test_no_actions_is_a_video_without_labels(tmp_path: Path) -> None:
    records = read(tmp_path, row("AAAAA", "") + row("BBBBB", "c001 0.00 3.00"))
    assert len(records) == 2
    assert records.labels(0).tolist() == []
    assert records.targets(0).tolist() == [0, 0, 0]
    assert records.labels(1).tolist() == [1]


def test_segments_are_cut_to_the_length_and_labels_kept(tmp_path: Path) -> None:
    actions = "c000 2.00 31.50;c001 12.00 13.00;c002 5.00 4.00"
    records = read(tmp_path, row("AAAAA", actions))
    assert segments(records, 0) == [(0, 2, 10), (1, 10, 10), (2, 5, 5)]
    assert records.labels(0).tolist() == [0, 1, 2]
    assert np.all(records.label_ends_s <= 10)


def test_a_class_may_repeat(tmp_path: Path) -> None:
    records = read(tmp_path, row("AAAAA", "c001 0 2;c001 6 8;"))
    assert segments(records, 0) == [(1, 0, 2), (1, 6, 8)]
    assert records.labels(0).tolist() == [1]
    assert records.labels_between(0, 3, 5).tolist() == []


def test_videos_of_either_release_are_found(tmp_path: Path) -> None:
    for path in ("Charades_v1_480/AAAAA.mp4", "Charades_v1/BBBBB.mp4", "Charades_v1/AAAAA.mp4"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    records = read(tmp_path, row("AAAAA", "") + row("BBBBB", "") + row("CCCCC", ""))
    assert list(records.paths) == ["Charades_v1_480/AAAAA.mp4", "Charades_v1/BBBBB.mp4", "Charades_v1_480/CCCCC.mp4"]
    assert missing(records) == [2]


@pytest.mark.parametrize(("actions", "count"), [("c001 0 1;c002 1 2", 2), ("", 0)])
def test_a_single_label_set_has_one_label_per_record(tmp_path: Path, actions: str, count: int) -> None:
    (tmp_path / "train.csv").write_text(HEADER + row("AAAAA", "c000 0 1") + row("BBBBB", actions))
    classes = ClassNames(("a", "b", "c"))
    source = AnnotationSource(
        root=tmp_path,
        annotations=(tmp_path / "train.csv",),
        multi_label=False,
        columns=READERS["charades_csv"].columns,
        finder=VideoFinder(tmp_path, ["."], ["{id}.mp4"], []),
        split_value="train",
        split_values=frozenset({"train"}),
        classes=classes,
    )
    with pytest.raises(UserError, match=rf"train\.csv:3: {count} labels; with `labels: single` it must be 1"):
        READERS["charades_csv"].read(source).build(classes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (row("AAAAA", "c003 0 1"), "train.csv:2 | 'c003 0 1' | c000 to c002"),
        (row("AAAAA", "c001 0"), "train.csv:2 | 'c001 0' | 'c<number> <start> <end>'"),
        (row("AAAAA", "c001 0 1 2"), "train.csv:2 | 'c001 0 1 2'"),
        (row("AAAAA", "c001 a 1"), "train.csv:2 | actions | 'a'"),
        (row("AAAAA", "c001 0 1", "long"), "train.csv:2 | length | 'long'"),
        (row("AAAAA", "") * 2, "train.csv:3 | 'AAAAA' | train.csv:2"),
        (row("../AAAA", ""), "train.csv:2 | '../AAAA'"),
        (row("", ""), "train.csv:2 | ''"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, rows: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(tmp_path, rows)


def test_class_files_must_be_numbered_from_nought(tmp_path: Path) -> None:
    with refused("Charades_v1_classes.txt:2", "'c002 Smiling'", "'c001 '"):
        read(tmp_path, row("AAAAA", ""), "c000 Holding\nc002 Smiling\n")
