"""Text and JSON lists: paths with labels, UCF101, HMDB51, AViD and Something-Something V2."""

import json
import shutil
from contextlib import nullcontext

import pytest
from PIL import Image

from tests.annotations.sets import make, missing, names, read, write
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_unlabeled
from vidtl.data.dataset import available_frames
from vidtl.video import open_video

CLASSES = "abseiling\nair drumming\nyoga\n"
HOSTILE = "20060723sfjffangelina_clap_u_nm_np1_fr_med_#1!&(x)"
HMDB51 = {
    "testTrainMulti_7030_splits/clap_test_split1.txt": f"{HOSTILE}.avi 1 \nb.avi 2 \nc.avi 0 \n",
    "testTrainMulti_7030_splits/brush_hair_test_split1.txt": "d.avi 2 \ne.avi 1 \n",
    "testTrainMulti_7030_splits/clap_test_split2.txt": "c.avi 1 \n",
    f"clap/{HOSTILE}.avi": "",
}
SSV2_LABELS = {"Holding something next to something": "1", "Folding something": "0"}
SSV2_ENTRIES = [
    {"id": "78687", "label": "holding potato next to bottle", "template": "Holding [something] next to [something]"},
    {"id": "42326", "label": "folding a towel", "template": "Folding [something]", "placeholders": ["a towel"]},
]


OFFSETS, LONG = "fields: [path, offset, frames, label]\n", "9" * 5000


def read_paths(root, lines, more="", labels="single", classes=CLASSES):
    listed = "" if classes is None else "classes: names.txt\n"
    text = f"format: path_list\nlabels: {labels}\n{listed}splits: {{val: {{annotations: list.txt, videos: clips}}}}\n"
    write(root, {"dataset.yaml": text + more, "names.txt": classes or "", "list.txt": lines})
    return read(root, "val", root)


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
def test_separators_and_paths_with_spaces(tmp_path, lines, paths):
    records = read_paths(tmp_path, lines)
    assert list(records.paths) == list(records.ids) == [f"clips/{path}" for path in paths]
    assert names(records) == ["yoga", "abseiling"]
    assert records.lines.tolist() == [1, 3 if "\r\n\r\n" in lines else 2]


def test_names_in_place_of_numbers_and_absolute_paths(tmp_path):
    records = read_paths(tmp_path, f"{tmp_path}/elsewhere/a.mp4,yoga\nb.mp4,yoga\n")
    assert names(records) == ["yoga", "yoga"]
    assert list(records.paths) == ["elsewhere/a.mp4", "clips/b.mp4"]
    assert read_paths(tmp_path, "a.mp4 sit\nb.mp4 run\n", classes=None).classes.names == ("run", "sit")
    with refused("list.txt:1", "`classes`", "dataset.yaml"):
        read_paths(tmp_path, "a.mp4 0\n", classes=None)


def test_folders_of_frames_with_their_counts(tmp_path):
    records = read_paths(tmp_path, "some/folder 163 1\nother 4 0\n", "fields: [path, frames, label]\nframe_rate: 25\n")
    assert list(records.paths) == ["clips/some/folder", "clips/other"]
    assert names(records) == ["air drumming", "abseiling"]
    assert records.frame_rate == 25


def test_offsets_select_images_of_a_folder(tmp_path):
    for number in range(6):
        make(tmp_path, file := f"clips/some/img_{number:05d}.png")
        Image.new("RGB", (8, 6)).save(tmp_path / file)
    records = read_paths(tmp_path, "some 0 2 1\nsome 2 4 0\n", OFFSETS + "frame_rate: 29.97\n")
    assert list(records.ids) == ["clips/some#frames=0,2", "clips/some#frames=2,6"]
    assert names(records) == ["air drumming", "abseiling"]
    with open_video(records.path(0), root=tmp_path, frame_rate=records.frame_rate) as video:
        frames = [available_frames(video, records, index, 0).tolist() for index in range(2)]
    assert frames == [[0, 1], [2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("videos/{0}/walk/a.mp4 1\nvideos/{0}/run/b.mp4 0\n", ""),
        ("videos/{0}/walk/a.mp4 0\nvideos/{0}/run/b.mp4 1\n", "list.txt:1 | 'run' | 'walk' | list.txt:2"),
        ("{0}/a.mp4 1\n{0}/b.mp4 0\n", ""),
        ("{0}/a.mp4 1\ntest/b.mp4 0\n", ""),
        ("walk/s1/a.mp4 1\nwalk/a.mp4 1\nrun/s1/c/b.mp4 1\n", "list.txt:3 | 'walk' | 'run'"),
        ("walk/run/a.mp4 1\nrun/run/b.mp4 0\n", ""),
    ],
)
def test_a_label_is_compared_with_the_folder_of_the_class(tmp_path, lines, message):
    for folder in ("train", "val"):
        with refused(*message.split(" | ")) if message else nullcontext():
            read_paths(tmp_path, lines.format(folder), classes="run\nwalk\ntrain\ntest\n")


def test_without_labels_the_folder_of_the_class_counts(tmp_path):
    records = read_paths(tmp_path, "train/yoga/s1/a.mp4\ntrain/air_drumming/s1/b.mp4\n")
    assert names(records) == ["yoga", "air drumming"]
    assert names(read_paths(tmp_path, "yoga/a.mp4\nyoga/b.mp4\n")) == ["yoga", "yoga"]
    assert names(read_paths(tmp_path, "run/a.mp4\nsit/b.mp4\n", classes=None)) == ["run", "sit"]
    for lines in ("val/a.mp4\nval/b.mp4\n", "all/a.mp4\nall/b.mp4\n", "train/a.mp4\nval/b.mp4\n", "a.mp4\n"):
        with refused("list.txt:1", "label"):
            read_paths(tmp_path, lines, classes=None)


def test_classes_of_folders_are_those_of_all_splits(tmp_path):
    splits = "{train: {annotations: a.txt}, val: {annotations: b.txt}, test: {annotations: c.txt}}"
    write(tmp_path, {"dataset.yaml": f"format: path_list\nlabels: single\nsplits: {splits}\n"})
    write(tmp_path, {"a.txt": "x/1.mp4\ny/2.mp4\n", "b.txt": "y/3.mp4\nz/4.mp4\n", "c.txt": "5.mp4\ntest/6.mp4\n"})
    train, val = (read(tmp_path, split, tmp_path) for split in ("train", "val"))
    assert train.classes.names == val.classes.names == ("x", "y", "z")
    assert (names(train), names(val)) == (["x", "y"], ["y", "z"])
    with refused("c.txt:1", "label"):
        read(tmp_path, "test", tmp_path)
    for split, ids, found in (("test", ["5.mp4", "test/6.mp4"], []), ("val", ["y/3.mp4", "z/4.mp4"], ["y"])):
        records = read_unlabeled(load_description(str(tmp_path)), split, tmp_path, ("y", "other"))
        assert (list(records.ids), names(records)) == (ids, found)


def test_numbers_of_a_list_with_gaps_decide(tmp_path):
    assert names(read_paths(tmp_path, "a.mp4 4\nb.mp4 1\n", classes="1 sit\n2 run\n4 walk\n")) == ["walk", "sit"]
    with refused("list.txt:1", "3", "1 to 4"):
        read_paths(tmp_path, "a.mp4 3\n", classes="1 sit\n2 run\n4 walk\n")


def test_paths_of_another_machine_are_found_and_reported(tmp_path, caplog):
    make(tmp_path, "clips/yoga/a.mp4", "clips/yoga/b.MTS", "clips/yoga/cafe\u0301.mp4", "clips/e\u0301/1.mp4")
    lines = "D:\\data\\yoga\\a.mp4 2\nyoga/b 2\nyoga/caf\u00e9 2\n\u00e9/1.mp4 2\nyoga/gone 2\n"
    records = read_paths(tmp_path, lines, "path_prefix: D:\\data\\\n")
    files = ["yoga/a.mp4", "yoga/b.MTS", "yoga/cafe\u0301.mp4", "e\u0301/1.mp4", "yoga/gone"]
    assert list(records.paths) == [f"clips/{file}" for file in files]
    assert missing(records) == [4]
    assert len(caplog.messages) == 1
    assert [part in caplog.text for part in ("list.txt", "4 paths", "clips/yoga/a.mp4")] == [True] * 3


def test_several_labels(tmp_path):
    records = read_paths(tmp_path, "a.mp4 0 2\nb.mp4\nc.mp4 1\n", labels="multi")
    assert [records.labels(index).tolist() for index in range(3)] == [[0, 2], [], [1]]
    records = read_paths(tmp_path, "a.mp4 7 0 2\n", "fields: [path, frames, label]\n", labels="multi")
    assert records.labels(0).tolist() == [0, 2]


def test_ucf101(tmp_path):
    lists = {
        "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n3 Archery\r\n",
        "ucfTrainTestlist/trainlist01.txt": "ApplyEyeMakeup/v_g08_c01.avi 1\r\nArchery/v_g08_c01.avi 3\r\n",
        "ucfTrainTestlist/testlist01.txt": "ApplyLipstick/v_g01_c01.avi\r\nArchery/v_g01_c01.avi\r\n",
    }
    write(tmp_path, lists)
    make(tmp_path, "UCF-101/Archery/v_g01_c01.avi")
    train, val = (read("ucf101", split, tmp_path) for split in ("train", "val"))
    assert train.classes.names == val.classes.names == ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
    assert (names(train), names(val)) == (["ApplyEyeMakeup", "Archery"], ["ApplyLipstick", "Archery"])
    assert list(val.paths) == ["UCF-101/ApplyLipstick/v_g01_c01.avi", "UCF-101/Archery/v_g01_c01.avi"]
    assert missing(val) == [0]


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ("a.mp4 3\n", "", "list.txt:1 | label | 0 to 2"),
        (f"a.mp4 {LONG}\n", "", "list.txt:1 | 999"),
        (f"a {LONG} 1 0\n", f"{OFFSETS}frame_rate: 25\n", "list.txt:1 | offset | 999"),
        (f"a 1 {LONG} 0\n", f"{OFFSETS}frame_rate: 25\n", "list.txt:1 | frames | 999"),
        ("a.mp4 yogi\n", "", "list.txt:1 | 'yogi' | 'yoga'"),
        ("a.mp4 0\nb.mp4\n", "", "list.txt:2 | label"),
        ("train/a.mp4\ntrain/b.mp4\n", "", "list.txt:1 | label"),
        ("yoga/a.mp4 2\nyogi/b.mp4\n", "", "list.txt:2 | 'yogi' | 'yoga'"),
        ("/data/yoga/a.mp4 2\n", "path_prefix: /date", "list.txt:1 | '/data/yoga/a.mp4' | path_prefix"),
        ("D:\\a.mp4 2\n", "", "list.txt:1 | path_prefix"),
        ("..\\a.mp4 0\n", "", "list.txt:1 | '../a.mp4'"),
        ("a.mp4 2 4 0\n", f"{OFFSETS}frame_rate: 25\n", "list.txt:1 | 'clips/a.mp4' | offset"),
        ("a x 4 0\n", f"{OFFSETS}frame_rate: 25\n", "list.txt:1 | offset | 'x'"),
        ("a 2 4 0\n", OFFSETS, "dataset.yaml | fields | frame_rate"),
        ("air_drumming/a.mp4 2\n", "", "'air drumming'"),
        ("folder 1\n", "fields: [path, frames, label]\n", "list.txt:1 | 'folder 1'"),
        ("a 1\n", "fields: [path, lable]\n", "dataset.yaml | 'lable' | 'label'"),
        ("a 1\n", "fields: [label, path]\n", "dataset.yaml | fields | ['label', 'path'] | 'path'"),
        ("a 1\n", "fields: [path, path]\n", "dataset.yaml | 'path'"),
        ("a 1\n", "fields: [path, other]\n", "dataset.yaml | fields | ['path', 'other'] | 'label'"),
        ("a 1\n", "fields: [path, label, frames]\n", "`labels: multi` | 'label'"),
    ],
)
def test_path_list_mistakes(tmp_path, lines, more, message):
    with refused(*message.split(" | ")):
        read_paths(tmp_path, lines, more, labels="multi" if "multi" in message else "single")


def test_hmdb51_flags_are_splits_and_files_are_classes(tmp_path):
    write(tmp_path, HMDB51)
    train, val = read("hmdb51", "train", tmp_path), read("hmdb51", "val", tmp_path)
    assert len(train.classes) == 51
    assert train.classes.names == val.classes.names == tuple(sorted(train.classes.names))
    assert list(train.ids) == ["brush_hair/e", f"clap/{HOSTILE}"]
    assert list(val.ids) == ["brush_hair/d", "clap/b"]
    assert names(train) == ["brush_hair", "clap"]
    assert train.paths[1] == f"clap/{HOSTILE}.avi"
    assert missing(train) == [0]
    origins = [train.origin(index).rpartition("/")[2] for index in range(2)]
    assert origins == ["brush_hair_test_split1.txt:2", "clap_test_split1.txt:1"]
    with refused("clap_test_split2.txt", "no row"):
        read("hmdb51", "val2", tmp_path)
    with refused("'*_test_split3.txt'"):
        read("hmdb51", "train3", tmp_path)


def test_avid(shared_data, tmp_path):
    official = shared_data / "annotations" / "avid" / "avid_val.json"
    shutil.copy(official, tmp_path / "avid_val.json")
    write(tmp_path, {"avid_train.json": '{"b.mp4": "yoga"}', "val/yrpxojhg.mp4": ""})
    records = read("avid", "val", tmp_path)
    content = {name: label or "none" for name, label in json.loads(official.read_text()).items()}
    assert len(records) == 46_850
    assert records.classes.names == tuple(sorted({*content.values(), "yoga"}))
    assert list(records.ids) == list(content)
    assert names(records) == list(content.values())
    assert list(records.paths)[:2] == ["val/yrpxojhg.mp4", "videos/gzsyeiym.mp4"]


def test_ssv2(tmp_path):
    lists = {"labels/labels.json": json.dumps(SSV2_LABELS), "labels/train.json": json.dumps(SSV2_ENTRIES)}
    write(tmp_path, {**lists, "20bn-something-something-v2/42326.webm": ""})
    records = read("ssv2", "train", tmp_path)
    assert records.classes.names == ("Folding something", "Holding something next to something")
    assert records.label_classes.tolist() == [1, 0]
    assert list(records.ids) == ["78687", "42326"]
    assert records.origin(1) == records.select([1]).origin(0) == f"{tmp_path / 'labels/train.json'}, entry 2"
    assert records.paths[1] == "20bn-something-something-v2/42326.webm"
    prefix = "something-something-v2-"
    older = {f"{prefix}labels.json": SSV2_LABELS, f"{prefix}validation.json": SSV2_ENTRIES[:1]}
    write(tmp_path, {name: json.dumps(content) for name, content in older.items()})
    assert read("ssv2", "val", tmp_path).label_classes.tolist() == [1]


@pytest.mark.parametrize(
    ("dataset", "content", "message"),
    [
        ("hmdb51", "b.avi 3", "clap_test_split1.txt:1 | 'b.avi 3'"),
        ("hmdb51", "../b.avi 1", "clap_test_split1.txt:1 | '../b.avi'"),
        ("avid", '{"a.mp4": "x", "a.mp4": "y"}', "avid_val.json | 'a.mp4' | twice"),
        ("avid", '["a.mp4"]', "avid_val.json, entry 1 | 'a.mp4'"),
        ("ssv2", {"id": "1"}, "train.json, entry 1 | 'id'"),
        ("ssv2", [*SSV2_ENTRIES, "x"], "train.json, entry 3 | 'x' | 'id'"),
        ("ssv2", [{"id": "1"}], "train.json | 'template'"),
        ("ssv2", [{"id": "../1", "template": "Folding [something]"}], "train.json, entry 1 | '../1'"),
        ("ssv2", [{"id": "1", "template": "Fold [something]"}], "'Folding something'"),
        ("ssv2", [{**each, "id": "7"} for each in SSV2_ENTRIES], "train.json, entry 2 | '7' | train.json, entry 1"),
    ],
)
def test_mistakes_name_file_and_line_or_entry(tmp_path, dataset, content, message):
    files, file, split = {
        "hmdb51": (HMDB51, "testTrainMulti_7030_splits/clap_test_split1.txt", "train"),
        "avid": ({"avid_train.json": '{"b.mp4": "x"}'}, "avid_val.json", "val"),
        "ssv2": ({"labels/labels.json": json.dumps(SSV2_LABELS)}, "labels/train.json", "train"),
    }[dataset]
    write(tmp_path, {**files, file: content if isinstance(content, str) else json.dumps(content)})
    with refused(*message.split(" | ")):
        read(dataset, split, tmp_path)
