"""CSV files with a header: Kinetics in every layout, user-defined columns, and GMDCSA24 with its errors."""

import csv
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.annotations.sets import labels, make, missing, names, read, write
from tests.refusals import refused
from vidtl.annotations.description import REPOSITORY_DATASETS
from vidtl.annotations.formats.tables import parse_activities

HEADER = "label,youtube_id,time_start,time_end,split\n"
GOOD = f"{HEADER}abseiling,first,1,11,val\n"
ALL = (-math.inf, math.inf)
SINGLE, MULTI = "labels: single", "labels: multi"
SPLIT = "labels: single\ncolumns: {split: part}"
TIMES = "labels: single\ncolumns: {start: from, end: to}"


def read_kinetics(root, text, *videos):
    write(root, {"annotations/val.csv": text})
    make(root, *videos)
    return read("kinetics400", "val", root)


def read_labelled(tmp_path, rows, description=SINGLE, split="train"):
    text = (
        "format: labelled_csv\nsplits:\n  train: {annotations: all.csv, videos: clips}\n"
        f"  held_out: {{annotations: all.csv, videos: clips, value: val}}\n{description}\n"
    )
    write(tmp_path, {"dataset.yaml": text, "all.csv": rows})
    return read(tmp_path, split, tmp_path)


@pytest.mark.parametrize(("size", "rows"), [(400, 19_906), (600, 30_000)])
def test_official_validation_files_of_kinetics(shared_data, tmp_path, size, rows):
    official = shared_data / "annotations" / "kinetics" / f"kinetics-{size}_val.csv"
    (tmp_path / "annotations").mkdir()
    shutil.copy(official, tmp_path / "annotations" / "val.csv")
    records = read(f"kinetics{size}", "val", tmp_path)
    assert len(records) == len(set(records.ids)) == len(missing(records)) == rows
    assert records.classes.names == tuple(sorted(records.classes.names))
    with official.open(newline="") as stream:
        listed = list(csv.DictReader(stream))
    assert names(records) == [row["label"] for row in listed]
    assert all(name.startswith(row["youtube_id"]) for name, row in zip(records.ids, listed, strict=True))
    assert records.lines.tolist() == list(range(2, rows + 2))
    assert set(records.label_classes.tolist()) == set(range(size))  # every committed class name occurs, and no other


def test_official_class_lists_are_the_committed_ones(shared_data):
    for size in (400, 600, 700):
        official = shared_data / "annotations" / "kinetics" / f"label_map_k{size}.txt"
        committed = REPOSITORY_DATASETS / f"kinetics{size}" / "classes.txt"
        assert committed.read_text().splitlines() == official.read_text().splitlines()


@pytest.mark.parametrize(
    ("video", "folder"),
    [
        ("val/-abcdefghij_000007_000017.mp4", "val"),
        ("videos_val/-abcdefghij_000007_000017.mkv", "val"),
        ("val/tying tie/-abcdefghij_000007_000017.webm", "val/air drumming"),
        ("val/tying_tie/-abcdefghij_000007_000017.mp4", "val/air drumming"),
        ("val/-abcdefghij.mp4", "val"),
        ("replacement/replacement_for_corrupted_k400/-abcdefghij_000007_000017.mp4", "val"),
    ],
)
def test_layouts_of_kinetics(tmp_path, video, folder):
    rows = '"tying tie",-abcdefghij,7,17,val\nair drumming,_bcdefghijk,0.0,10.0,val\n'
    records = read_kinetics(tmp_path, HEADER + rows, video)
    assert list(records.paths) == [video, f"{folder}/_bcdefghijk_000000_000010.mp4"]
    assert missing(records) == [1]
    assert records.segment_starts_s.tolist() == [0, 0]
    assert records.labels(0, 100, 101).tolist() == records.labels(0).tolist()


def test_two_clips_of_a_video_with_bom_crlf_blank_lines_and_further_columns(tmp_path):
    rows = f"\ufeff{HEADER.strip()},is_cc\n\nabseiling,a,1,11,val,0\nyoga,a,12,22,val,1\n".replace("\n", "\r\n")
    records = read_kinetics(tmp_path, rows, "val/a_000001_000011.mp4", "val/a_000012_000022.mp4")
    assert list(records.ids) == ["a_000001_000011", "a_000012_000022"]
    assert records.lines.tolist() == [3, 4]
    assert list(records.paths) == ["val/a_000001_000011.mp4", "val/a_000012_000022.mp4"]


def test_a_file_shared_by_two_clips_counts_as_missing(tmp_path, caplog):
    rows = "abseiling,a,1,11,val\nyoga,b,1,11,val\nyoga,a,12,22,val\n"
    records = read_kinetics(tmp_path, HEADER + rows, "val/a.mp4", "val/b.mp4")
    assert list(records.paths) == ["val/a_000001_000011.mp4", "val/b.mp4", "val/a_000012_000022.mp4"]
    assert missing(records) == [0, 2]
    assert "val.csv:2: 2 rows" in caplog.text
    assert "'val/a.mp4'" in caplog.text
    text = "format: kinetics_csv\nlabels: single\nfiles: '{id}.mp4'\nsplits: {val: {annotations: annotations/val.csv}}"
    write(tmp_path, {"mine/dataset.yaml": text, "a.mp4": ""})
    with refused("val.csv:4", "'a.mp4'", "val.csv:2"):
        read(tmp_path / "mine", "val", tmp_path)
    records = read_kinetics(tmp_path, HEADER + "yoga,a,1,11,val\n" * 2, "val/a.mp4")  # equal rows share it rightly
    assert list(records.paths) == ["val/a.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "absailing,a,1,11,val", "val.csv:3 | 'absailing' | 'abseiling'"),
        (GOOD + "yoga,,1,11,val", "val.csv:3 | youtube_id"),
        (GOOD + "yoga,a,nan,11,val", "val.csv:3 | time_start | 'nan'"),
        (GOOD + "yoga,a,-1,11,val", "val.csv:3 | time_start | '-1'"),
        (GOOD + "yoga,a,1.5,11,val", "val.csv:3 | time_start | '1.5'"),
        (GOOD + "yoga,a,11,1,val", "val.csv:3 | time_end is 1"),
        (GOOD + "yoga,first,1,11,val", "val.csv:3 | 'first_000001_000011' | val.csv:2"),
        (GOOD + "yoga,../a,1,11,val", "val.csv:3 | 'yoga/../a'"),
        (GOOD + "yoga,a,1,11", "val.csv:3 | 4 fields | 5"),
        (GOOD + '"yoga"x,a,1,11,val', "val.csv:3 | CSV"),
        (GOOD + 'yoga,"a\nb",1,11,val', "val.csv:3 | 'yoga/a\\nb'"),
        ("", "val.csv:1 | 'label'"),
        (HEADER.replace("split", "label"), "val.csv:1 | 'label'"),
        (GOOD + "caf\udce9,a,1,11,val\n", "val.csv | UTF-8"),
    ],
)
def test_kinetics_mistakes(tmp_path, text, message):
    with refused(*message.split(" | ")):
        read_kinetics(tmp_path, text)


def test_fight_surv(shared_data):
    root = shared_data / "fight_surv"
    with (root / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for split, count in (("train", 126), ("val", 35)):
        records = read("fight_surv", split, root)
        assert (records.classes.names, missing(records), len(records)) == (("fight", "noFight"), [], count)
        expected = [(row["path"], row["label"]) for row in rows if row["suggested_split"] == split]
        assert list(zip(records.paths, names(records), strict=True)) == expected


def test_overhead_activities(shared_data, tmp_path):
    shared, script = shared_data / "overhead_activities", REPOSITORY_DATASETS / "overhead_activities/prepare.py"
    (tmp_path / "video").symlink_to(shared / "video")
    subprocess.run([sys.executable, script, shared / "upstream_labels.csv", tmp_path], check=True)
    rows = list(csv.DictReader((shared / "windows_2s.csv").read_text().splitlines()))
    for split in ("train", "val"):
        records = read("overhead_activities", split, tmp_path)
        expected = [(row["path"], row["label"]) for row in rows if row["split"] == split]
        assert list(zip(records.paths, names(records), strict=True)) == expected
        assert split == "train" or np.ptp(records.segment_ends_s - records.segment_starts_s) < 1e-6


def test_single_label_rows(tmp_path):
    records = read_labelled(tmp_path, 'path,label\na.mp4,sit\n"./x/b, c.mp4",run\n')
    assert list(records.ids) == list(records.paths) == ["clips/a.mp4", "clips/x/b, c.mp4"]
    assert records.classes.names == ("run", "sit")
    assert records.segment_ends_s.tolist() == [np.inf, np.inf]
    rows = "path,label,from,to\na.mp4,sit,2.5,4\na.mp4,run,4,\na.mp4,run,,1\nb.mp4,run,,\n"
    records = read_labelled(tmp_path, rows, TIMES)
    assert list(records.ids) == ["clips/a.mp4#t=2.5,4", "clips/a.mp4#t=4", "clips/a.mp4#t=0,1", "clips/b.mp4"]
    assert list(records.paths) == ["clips/a.mp4"] * 3 + ["clips/b.mp4"]
    assert records.segment_starts_s.tolist() == [2.5, 4, 0, 0]
    assert records.segment_ends_s.tolist() == [4, np.inf, 1, np.inf]


def test_multi_label_rows_of_one_file_are_one_record(tmp_path):
    rows = "path,label,from,to\na.mp4,sit; talk,2,4\nb.mp4,,,\na.mp4,run,5,6\na.mp4,talk,,\n"
    records = read_labelled(tmp_path, rows, TIMES.replace("single", "multi"))
    assert list(records.ids) == ["clips/a.mp4", "clips/b.mp4"]
    assert labels(records, 0) == [("sit", 2, 4), ("talk", 2, 4), ("run", 5, 6), ("talk", *ALL)]
    assert labels(records, 1) == []
    assert records.lines.tolist() == [2, 3]


def test_clock_times_and_frame_numbers(tmp_path):
    rows = "path,label,from,to\na.mp4,sit,1:02:03.5,01:02:04\na.mp4,run,75:30,\n"
    records = read_labelled(tmp_path, rows, TIMES)
    assert list(records.ids) == ["clips/a.mp4#t=1:02:03.5,01:02:04", "clips/a.mp4#t=75:30"]
    assert records.segment_starts_s.tolist() == [3723.5, 4530]
    assert records.segment_ends_s.tolist() == [3724, np.inf]
    frames = TIMES + "\ntime_unit: frames\nframe_rate: 30"
    records = read_labelled(tmp_path, "path,label,from,to\na.mp4,sit,0,3\na.mp4,run,3,\n", frames)
    assert list(records.ids) == ["clips/a.mp4#frames=0,3", "clips/a.mp4#frames=3"]
    times = np.arange(6) / 30
    inside = [
        np.flatnonzero((times >= start) & (times < end)).tolist()
        for start, end in zip(records.segment_starts_s, records.segment_ends_s, strict=True)
    ]
    assert inside == [[0, 1, 2], [3, 4, 5]]
    for unit, start in (("", "1:61:00"), ("", "1:2:3:4"), ("", "1:nan"), (frames, "0.5"), (frames, "0:03")):
        with refused("all.csv:2", "from", repr(start)):
            read_labelled(tmp_path, f"path,label,from,to\na.mp4,x,{start},\n", unit or TIMES)


def test_equal_rows_are_one_record_and_all_contradictions_are_listed(tmp_path, caplog):
    records = read_labelled(tmp_path, "path,label\na.mp4,x\nb.mp4,y\na.mp4,x\na.mp4,x\n")
    assert (list(records.ids), names(records)) == (["clips/a.mp4", "clips/b.mp4"], ["x", "y"])
    assert [part in caplog.messages[0] for part in ("all.csv:3", "all.csv:2", " 2 rows")] == [False, True, True]
    rows = "".join(f"{number}.mp4,{label}\n" for label in "xy" for number in range(25))
    with refused("'clips/0.mp4' is 'x' at", "all.csv:2 ", "'y' at", "all.csv:27", "'clips/19.mp4'", "5 more"):
        read_labelled(tmp_path, "path,label\n" + rows)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_column_of_ids(tmp_path, kind):
    columns = f"labels: {kind}\ncolumns: {{id: clip, start: from, end: to}}"
    header = "clip,path,label,from,to\n"
    records = read_labelled(tmp_path, f"{header}1,a.mp4,x,0,2\n2,a.mp4,x,2,4\n", columns)
    assert (list(records.ids), list(records.paths)) == (["1", "2"], ["clips/a.mp4"] * 2)
    with refused("'1' is", "all.csv:2", "all.csv:3"):
        read_labelled(tmp_path, f"{header}1,a.mp4,x,0,2\n1,b.mp4,x,0,2\n", columns)
    if kind == "single":
        with refused("'1' is", "all.csv:2", "all.csv:3"):
            read_labelled(tmp_path, f"{header}1,a.mp4,x,0,2\n1,a.mp4,x,2,4\n", columns)


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ("a.mp4,Sit down\nb.mp4,sit_down\nc.mp4,run\n", ("all.csv:2", "2 labels", "'Sit down'", "'sit_down'")),
        ("a.mp4,cafe\u0301\nb.mp4,caf\u00e9\n", ("all.csv:2", "2 labels")),
        ("a.mp4,x\nb.mp4,x|y\n", ("all.csv:3", "1 labels", "'x|y'")),
        ("a.mp4,\"x,y\"\nb.mp4,\"['x', 'y']\"\n", ("all.csv:2", "2 labels", "'x,y'")),
        ('a.mp4,x\nb.mp4,"x, y"\n', ("all.csv:3", "'x, y'")),
        ("a.mp4,[x] hits [y]\nb.mp4,x\n", ()),
        ('a.mp4,"rise, then fall"\nb.mp4,1,000 m\n'.replace("1,000 m", "run"), ()),
    ],
)
def test_labels_that_look_like_others_give_one_warning(tmp_path, caplog, rows, parts):
    read_labelled(tmp_path, "path,label\n" + rows)
    assert len(caplog.messages) == bool(parts)
    assert [part for part in parts if part not in caplog.text] == []


def test_splits_by_a_column_and_other_spellings(tmp_path):
    rows = "path,label,part\na.mp4,Sitting,train\nb.mp4,run,val\nc.mp4,sit,train\n"
    description = SPLIT + "\naliases: {Sitting: sit}"
    train, held_out = (read_labelled(tmp_path, rows, description, split) for split in ("train", "held_out"))
    assert (list(train.ids), list(held_out.ids)) == (["clips/a.mp4", "clips/c.mp4"], ["clips/b.mp4"])
    assert train.classes.names == held_out.classes.names == ("run", "sit")


@pytest.mark.parametrize(
    ("rows", "description", "message"),
    [
        ("path,labels\na,b\n", SINGLE, "all.csv:1 | 'label' | 'path' | 'labels'"),
        ("path;label\na.mp4;b\n", SINGLE, "all.csv:1 | 'path' | 'path;label' | ';' | ','"),
        ('"path"\t"label"\na.mp4\tb\n', SINGLE, "all.csv:1 | separator ','"),
        ("path\tlabel\na.mp4\tb\n", SINGLE, r"all.csv:1 | 'path' | separator is '\t' | ','"),
        ("a.mp4,b\nc.mp4,d\n", SINGLE, "all.csv:1 | 'path' | 'a.mp4' | header | path,label"),
        ("path,label\na.mp4,\n", SINGLE, "all.csv:2 | label"),
        ("path,label\na.mp4,x;;y\n", MULTI, "all.csv:2 | label"),
        ("path,label\n/etc/a.mp4,x\n", SINGLE, "all.csv:2 | '/etc/a.mp4'"),
        ("path,label,part\na.mp4,x,trian\n", SPLIT, "all.csv:2 | part | 'trian' | 'train'"),
        ("path,label,part\na.mp4,x,val\n", SPLIT, "all.csv | no row"),
        ("path,label,from,to\na.mp4,x,soon,1\n", TIMES, "all.csv:2 | from | 'soon'"),
        ("path,label,from,to\na.mp4,x,2,1\n", TIMES, "all.csv:2 | to is 1"),
    ],
)
def test_labelled_csv_mistakes(tmp_path, rows, description, message):
    with refused(*message.split(" | ")):
        read_labelled(tmp_path, rows, description)


def test_gmdcsa24_sample(shared_data):
    root = shared_data / "gmdcsa24"
    train, val = (read("gmdcsa24_sample", split, root) for split in ("train", "val"))
    falls = [f"Falling ({kind}W)" for kind in "BFS"]
    assert train.classes.names == val.classes.names == ("Eating", *falls, "Sitting", "Standing", "Walking")
    assert (train.multi_label, missing(train), missing(val), len(train)) == (True, [], [], 5)
    assert {val.ids[index]: labels(val, index) for index in range(len(val))} == {
        "Subject_3/ADL/18": [("Eating", 5.1, 5.8), ("Sitting", 0.6, 11), ("Walking", 0, 0.5)],
        "Subject_3/ADL/19": [("Walking", 1.8, 5)],
        "Subject_3/ADL/20": [("Sitting", 0, 9)],
        "Subject_3/Fall/19": [("Falling (BW)", 2, 5), ("Standing", 0, 1.9)],
        "Subject_3/Fall/20": [("Falling (FW)", 2.3, 6), ("Walking", 0, 2.2)],
    }
    assert val.select([3, 0]).origin(0) == val.origin(3) == f"{root}/Subject_3/Fall.csv:2"


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
def test_unambiguous_errors_of_gmdcsa24_are_accepted(text, expected):
    assert list(parse_activities(text, "here")) == expected


def test_ambiguous_activities_are_refused():
    for text in ("Sitting[a to b]", "Sitting[1 to 2 to 3]", "[1 to 2]", "Sitting[1]", "Sitting Walking[1 to 2]"):
        with refused("here"):
            list(parse_activities(text, "here"))


def test_gmdcsa24_splits_by_subject_and_keeps_missing_clips(tmp_path):
    header = "File Name,Length (seconds),Time of Recording,Attire,Description, Classes\n"
    activities = {"ADL": "Sitting[0 to 1]", "Fall": "Fall (FW)[1 to 2]"}
    for subject in range(1, 5):
        for kind, activity in activities.items():
            write(tmp_path, {f"Subject {subject}/{kind}.csv": f"{header}01.mp4,02,Day,Shirt,Something, {activity}\n"})
    train, val = (read("gmdcsa24", split, tmp_path) for split in ("train", "val"))
    assert len(train.classes) == 12
    assert list(train.paths) == [f"Subject {s}/{kind}/01.mp4" for s in (1, 2, 3) for kind in ("ADL", "Fall")]
    assert list(val.ids) == ["Subject 4/ADL/01", "Subject 4/Fall/01"]
    assert [labels(val, index) for index in range(2)] == [[("Sitting", 0, 1)], [("Falling (FW)", 1, 2)]]
    assert missing(val) == [0, 1]
