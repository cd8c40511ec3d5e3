"""`path label` lists of UCF101, mmaction2, SlowFast and VideoMAE."""

from pathlib import Path

import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records

CLASSES = "abseiling\nair drumming\nyoga\n"


def read(root: Path, lines: str, more: str = "", labels: str = "single", classes: str | None = CLASSES) -> Records:
    listed = "" if classes is None else "classes: names.txt\n"
    (root / "dataset.yaml").write_text(
        f"format: path_list\nlabels: {labels}\n{listed}"
        f"splits: {{val: {{annotations: list.txt, videos: clips}}}}\n{more}"
    )
    (root / "names.txt").write_text(classes or "")
    (root / "list.txt").write_bytes(lines.encode())
    return read_records(load_description(str(root)), "val", root)


def names(records: Records) -> list[str]:
    return [records.classes.names[records.labels(index)[0]] for index in range(len(records))]


@pytest.mark.parametrize(
    ("lines", "paths"),
    [
        ("a.mp4 2\nb/c.mp4 0\n", ["a.mp4", "b/c.mp4"]),
        ("a.mp4,2\nb/c.mp4,0", ["a.mp4", "b/c.mp4"]),
        ("a.mp4\t2\r\n\r\nb/c.mp4  0\r\n", ["a.mp4", "b/c.mp4"]),
        ("\ufeffa b, c.mp4 2\n./d  e.mp4 0\n", ["a b, c.mp4", "d  e.mp4"]),
        ("a b.mp4, 2\nc,d.mp4, 0\n", ["a b.mp4", "c,d.mp4"]),
    ],
)
def test_separators_and_paths_with_spaces(tmp_path: Path, lines: str, paths: list[str]) -> None:
    records = read(tmp_path, lines)
    assert list(records.paths) == list(records.ids) == [f"clips/{path}" for path in paths]
    assert names(records) == ["yoga", "abseiling"]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "a.mp4 2\n\nb.mp4 0\n").lines.tolist() == [1, 3]


def test_names_in_place_of_numbers(tmp_path: Path) -> None:
    assert names(read(tmp_path, "a.mp4,air drumming\nb.mp4,yoga\n".replace("air drumming", "yoga"))) == ["yoga", "yoga"]
    records = read(tmp_path, "a.mp4 sit\nb.mp4 run\n", classes=None)
    assert records.classes.names == ("run", "sit")


def test_folders_of_frames_with_their_counts(tmp_path: Path) -> None:
    records = read(tmp_path, "some/folder 163 1\nother 4 0\n", "fields: [path, frames, label]\nframe_rate: 25\n")
    assert list(records.paths) == ["clips/some/folder", "clips/other"]
    assert names(records) == ["air drumming", "abseiling"]
    assert records.frame_rate == 25


def test_several_labels(tmp_path: Path) -> None:
    records = read(tmp_path, "a.mp4 0 2\nb.mp4\nc.mp4 1\n", labels="multi")
    assert [records.labels(index).tolist() for index in range(3)] == [[0, 2], [], [1]]


def test_absolute_paths_inside_the_root(tmp_path: Path) -> None:
    assert list(read(tmp_path, f"{tmp_path}/elsewhere/a.mp4 0\n").paths) == ["elsewhere/a.mp4"]


def test_ucf101(tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n3 Archery\r\n")
    (lists / "trainlist01.txt").write_bytes(
        b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 3\r\n"
    )
    (lists / "testlist01.txt").write_bytes(
        b"ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\nArchery/v_Archery_g01_c01.avi\r\n"
    )
    video = tmp_path / "UCF-101/Archery/v_Archery_g01_c01.avi"
    video.parent.mkdir(parents=True)
    video.touch()
    description = load_description("ucf101")
    train, val = (read_records(description, split, tmp_path) for split in ("train", "val"))
    assert train.classes.names == val.classes.names == ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
    assert names(train) == ["ApplyEyeMakeup", "Archery"]
    assert names(val) == ["ApplyLipstick", "Archery"]
    assert list(val.paths) == [
        "UCF-101/ApplyLipstick/v_ApplyLipstick_g01_c01.avi",
        "UCF-101/Archery/v_Archery_g01_c01.avi",
    ]
    assert missing(val) == [0]


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ("a.mp4 3\n", "", "list.txt:1 | label | 0 to 2"),
        ("a.mp4 yogi\n", "", "list.txt:1 | 'yogi' | 'yoga'"),
        ("a.mp4 -1\n", "", "list.txt:1 | '-1'"),
        ("a.mp4 0\nb.mp4\n", "", "list.txt:2 | 'clips'"),
        ("a.mp4 0\na.mp4 1\n", "", "list.txt:2 | 'clips/a.mp4' | list.txt:1"),
        ("../a.mp4 0\n", "", "list.txt:1 | '../a.mp4'"),
        ("/etc/passwd 0\n", "", "list.txt:1 | '/etc/passwd'"),
        ("http://host/a.mp4 0\n", "", "list.txt:1 | 'http://host/a.mp4'"),
        ("yoga/a.mp4 0\n", "", "list.txt:1 | '0' | 'abseiling' | 'yoga'"),
        ("air_drumming/a.mp4 2\n", "", "'air drumming'"),
        ("folder x 1\n", "fields: [path, frames, label]\n", "list.txt:1 | frames | 'x'"),
        ("folder 1\n", "fields: [path, frames, label]\n", "list.txt:1 | 'folder 1'"),
        ("a 1\n", "fields: [path, lable]\n", "dataset.yaml | 'lable' | 'label'"),
        ("a 1\n", "fields: [label, path]\n", "dataset.yaml | fields | ['label', 'path'] | 'path'"),
        ("a 1\n", "fields: [path, path]\n", "dataset.yaml | 'path'"),
        ("a 1\n", "fields: [path, other]\n", "dataset.yaml | fields | ['path', 'other'] | 'label'"),
        ("\n", "", "list.txt | no row"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, lines: str, more: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(tmp_path, lines, more)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("[path]", "fields | ['path'] | 'label'"),
        ("[path, label, frames]", "`labels: multi` | 'label'"),
    ],
)
def test_several_labels_come_last(tmp_path: Path, fields: str, message: str) -> None:
    with refused(*message.split(" | ")):
        read(tmp_path, "a.mp4 0 2\n", f"fields: {fields}\n", labels="multi")
    records = read(tmp_path, "a.mp4 7 0 2\n", "fields: [path, frames, label]\n", labels="multi")
    assert records.labels(0).tolist() == [0, 2]


def test_numbers_need_a_list_of_classes(tmp_path: Path) -> None:
    with refused("list.txt:1", "`classes`", "dataset.yaml"):
        read(tmp_path, "a.mp4 0\n", classes=None)
