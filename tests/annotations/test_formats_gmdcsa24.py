"""GMDCSA24: ten real clips, and the slips that its full set contains."""

import math
from pathlib import Path

import pytest

from tests.data.absent import missing
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.formats.tables import parse_activities
from vidtl.annotations.records import Records

HEADER = "File Name,Length (seconds),Time of Recording,Attire,Description, Classes\n"
ALL = (-math.inf, math.inf)


def labels(records: Records) -> dict[str, list[tuple[str, float, float]]]:
    found = {}
    for index, video_id in enumerate(records.ids):
        part = slice(records.label_offsets[index], records.label_offsets[index + 1])
        names = [records.classes.names[k] for k in records.label_classes[part]]
        starts, ends = records.label_starts_s[part], records.label_ends_s[part]
        found[video_id] = [
            (name, round(float(start), 2), round(float(end), 2))
            for name, start, end in zip(names, starts, ends, strict=True)
        ]
    return found


def test_the_clips_at_hand(shared_data: Path) -> None:
    root, description = shared_data / "gmdcsa24", load_description("gmdcsa24_sample")
    train, val = (read_records(description, split, root) for split in ("train", "val"))
    assert train.multi_label
    assert train.classes == val.classes
    assert train.classes.names == (
        *("Eating", "Falling (BW)", "Falling (FW)", "Falling (SW)", "Sitting", "Standing", "Walking"),
    )
    assert missing(train) == missing(val) == []
    assert labels(train) == {
        "Subject_1/Fall/13": [("Falling (BW)", 0.4, 4), ("Standing", 0, 0.3)],
        "Subject_1/Fall/14": [("Falling (BW)", 0.3, 5), ("Standing", 0, 0.2)],
        "Subject_1/Fall/15": [("Falling (SW)", 1.8, 6), ("Sitting", 0, 2)],
        "Subject_2/ADL/23": [("Eating", 4.2, 5.2), ("Sitting", 0, 7)],
        "Subject_2/Fall/13": [("Falling (BW)", 2.5, 8), ("Standing", 0, 2.5)],
    }
    assert labels(val) == {
        "Subject_3/ADL/18": [("Eating", 5.1, 5.8), ("Sitting", 0.6, 11), ("Walking", 0, 0.5)],
        "Subject_3/ADL/19": [("Walking", 1.8, 5)],
        "Subject_3/ADL/20": [("Sitting", 0, 9)],
        "Subject_3/Fall/19": [("Falling (BW)", 2, 5), ("Standing", 0, 1.9)],
        "Subject_3/Fall/20": [("Falling (FW)", 2.3, 6), ("Walking", 0, 2.2)],
    }
    assert val.origin(3) == f"{root}/Subject_3/Fall.csv:2"
    assert val.select([3, 0]).origin(0) == val.origin(3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sitting[0 to 1]; Sleeping[2 to 8]", [("Sitting", 0, 1), ("Sleeping", 2, 8)]),
        ("Falling (SW) [1.8 to 6] ; Sitting [ 0 to 2];", [("Falling (SW)", 1.8, 6), ("Sitting", 0, 2)]),
        ("Standing[0 to 0.5; 4.2 to 6.5]", [("Standing", 0, 0.5), ("Standing", 4.2, 6.5)]),
        ("Falling (SW)[1.8 to 5]:; Walking[0 to 1.8]", [("Falling (SW)", 1.8, 5), ("Walking", 0, 1.8)]),
        ("Standing[2 to 3; 6 to 7; Walking[3 to 5]", [("Standing", 2, 3), ("Standing", 6, 7), ("Walking", 3, 5)]),
        ("Falling (BW[5.9 to 10]", [("Falling (BW", 5.9, 10)]),
        ("Eating[0.9 4.6]; Standing[0 to 8.1]", [("Eating", 0.9, 4.6), ("Standing", 0, 8.1)]),
        ("Reading; Sitting[1 to 8]", [("Reading", *ALL), ("Sitting", 1, 8)]),
        ("Sitting[9.7 to 3]", [("Sitting", 9.7, 9.7)]),
        ("Standing[3 to 5];Walking[5 to 7]; ", [("Standing", 3, 5), ("Walking", 5, 7)]),
        ("", []),
    ],
)
def test_slips_that_keep_their_meaning_are_read(text: str, expected: list[tuple[str, float, float]]) -> None:
    assert list(parse_activities(text, "here")) == expected


@pytest.mark.parametrize(
    "text", ["Sitting[a to b]", "Sitting[1 to 2 to 3]", "[1 to 2]", "Sitting[1]", "Sitting Walking[1 to 2]"]
)
def test_text_that_means_nothing_is_refused(text: str) -> None:
    with refused("here"):
        list(parse_activities(text, "here"))


def test_the_full_set_splits_by_subject_and_keeps_absent_clips(tmp_path: Path) -> None:
    for subject in range(1, 5):
        for kind, activity in (("ADL", "Sitting[0 to 1]"), ("Fall", "Fall (FW)[1 to 2]")):
            folder = tmp_path / f"Subject {subject}"
            folder.mkdir(exist_ok=True)
            (folder / f"{kind}.csv").write_text(f"{HEADER}01.mp4,02,Day,Shirt,Something, {activity}\n")
    description = load_description("gmdcsa24")
    train, val = (read_records(description, split, tmp_path) for split in ("train", "val"))
    assert len(train.classes) == 12
    assert list(train.paths) == [f"Subject {s}/{kind}/01.mp4" for s in (1, 2, 3) for kind in ("ADL", "Fall")]
    assert labels(val) == {"Subject 4/ADL/01": [("Sitting", 0, 1)], "Subject 4/Fall/01": [("Falling (FW)", 1, 2)]}
    assert missing(val) == [0, 1]
