"""Published tables: EPIC-KITCHENS, ActivityNet, HACS, WLASL, HVU, Diving48, Moments, Hugging Face, file names."""

import json
import math
import sys

import pytest

from tests.annotations.sets import labels, make, missing, names, read, write
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_unlabeled

EPIC = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp"
EPIC_ROWS = [
    "P01_11_0,P01,P01_11,00:00:00.560,00:00:00.00,00:00:01.89",
    "P02_01_7,P02,P02_01,00:10:48.500,00:10:49.15,01:00:50.95",
]
CLASSES = "id,key,instances,category\n"
EPIC_FILES = {
    "EPIC_100_verb_classes.csv": f"{CLASSES}0,take,\"['take', 'get']\",get\n1,put,['put'],leave\n2,lift,['lift'],get\n",
    "EPIC_100_noun_classes.csv": f"{CLASSES}0,tap,['tap'],sink\n1,oil:olive,['oil'],drink\n2,plug,['plug'],sink\n",
    "EPIC_100_train.csv": f"{EPIC},verb,verb_class,noun,noun_class\n{EPIC_ROWS[0]},get,0,tap,0\n",
    "EPIC_100_validation.csv": f"{EPIC},verb,verb_class,noun,noun_class\n{EPIC_ROWS[1]},put,1,oil,1\n",
    "EPIC_100_test_timestamps.csv": f"{EPIC}\n{EPIC_ROWS[0]}\n{EPIC_ROWS[1]}\n",
    "P02/videos/P02_01.MP4": "",
}
SEGMENTS = {
    "version": "VERSION 1.3",
    "database": {
        "--0edUL8zmA": {
            "annotations": [
                {"label": "Dodgeball", "segment": [5.4, 11.6]},
                {"label": "Archery", "segment": [12, 88.16]},
            ],
            "subset": "training",
            "duration": "92.17",
        },
        "sJn0jwrqyGs": {"annotations": [{"label": "Archery", "segment": [0, 1]}], "subset": "validation"},
        "9ev5V1HF2kQ": {"annotations": [], "subset": "testing"},
    },
}
AT = "entries: at\ncolumns: "
WLASL = [
    {"gloss": "book", "instances": [{"video_id": "69241", "split": "train", "frame_end": -1}, {"video_id": "07069"}]},
    {"gloss": "drink", "instances": [{"video_id": "69302", "split": "val", "fps": 25, "url": "http://x"}]},
]
WLASL[0]["instances"][1]["split"] = "val"


def table(root, more, files, split="train", labels="single"):
    write(root, {"dataset.yaml": f"format: labelled_table\nlabels: {labels}\n{more}\n", **files})
    return read(root, split, root)


def test_epic_actions_are_pairs_of_classes_and_verbs_a_setting(tmp_path):
    write(tmp_path, EPIC_FILES)
    val = read("epic_kitchens100", "val", tmp_path)
    assert val.classes.names == ("put oil:olive", "take tap")
    assert (list(val.ids), list(val.paths), names(val)) == (["P02_01_7"], ["P02/videos/P02_01.MP4"], ["put oil:olive"])
    assert (val.segment_starts_s.tolist(), val.segment_ends_s.tolist()) == ([649.15], [3650.95])
    train = read("epic_kitchens100", "train", tmp_path)
    assert (list(train.paths), missing(train)) == (["P01/videos/P01_11.mp4"], [0])
    description = (load_description("epic_kitchens100").folder / "dataset.yaml").read_text()
    verbs = description.replace(" + EPIC_100_noun_classes.csv", "").replace(" + noun_class", "")
    write(tmp_path, {"verbs/dataset.yaml": verbs})
    assert read(tmp_path / "verbs", "val", tmp_path).classes.names == ("take", "put", "lift")


def test_lists_without_labels_are_for_prediction_only(tmp_path):
    write(tmp_path, EPIC_FILES)
    description = load_description("epic_kitchens100")
    with refused("EPIC_100_test_timestamps.csv", "'verb_class'"):
        read("epic_kitchens100", "test", tmp_path)
    test = read_unlabeled(description, "test", tmp_path, ("put oil:olive", "take tap", "take oil:olive"))
    assert (list(test.ids), len(test.classes), test.label_classes.size) == (["P01_11_0", "P02_01_7"], 3, 0)
    val = read_unlabeled(description, "val", tmp_path, ("put oil:olive",))
    assert names(val) == ["put oil:olive"]  # so that `part` and its strata are the same with labels


@pytest.mark.parametrize("dataset", ["activitynet", "hacs"])
def test_segments_of_activitynet(tmp_path, dataset):
    file = {"activitynet": "activity_net.v1-3.min.json", "hacs": "HACS_segments_v1.1.1.json"}[dataset]
    video = "videos/v_--0edUL8zmA.mkv"
    write(tmp_path, {file: json.dumps(SEGMENTS), f"{video}": ""})
    train = read(dataset, "train", tmp_path)
    assert train.classes.names == ("Archery", "Dodgeball")
    assert list(train.ids) == ["v_--0edUL8zmA#t=5.4,11.6", "v_--0edUL8zmA#t=12,88.16"]
    assert set(train.paths) == {video}
    assert train.origin(1) == f"{tmp_path / file}, entry 2"
    assert missing(read(dataset, "val", tmp_path)) == [0]
    with refused(file, "entry 4", "label"):
        read(dataset, "test", tmp_path)
    test = read_unlabeled(load_description(dataset), "test", tmp_path, train.classes.names)
    assert (len(test), test.label_classes.size, test.segment_ends_s.tolist()) == (1, 0, [math.inf])


def test_videos_of_activitynet_with_all_their_labels(tmp_path):
    text = (load_description("activitynet").folder / "dataset.yaml").read_text().replace("single", "multi")
    write(tmp_path, {"mine/dataset.yaml": text, "activity_net.v1-3.min.json": json.dumps(SEGMENTS)})
    train = read(tmp_path / "mine", "train", tmp_path)
    assert list(train.ids) == ["v_--0edUL8zmA"]
    assert labels(train, 0) == [("Dodgeball", 5.4, 11.6), ("Archery", 12, 88.16)]
    with refused("activity_net", "'test'", "no labels"):
        read(tmp_path / "mine", "test", tmp_path)


def test_wlasl_and_diving48(tmp_path):
    dives = [{"vid_name": "-mmq0PT-u8k_00155", "label": 47, "start_frame": 0}, {"vid_name": "b", "label": 0}]
    write(tmp_path, {"WLASL_v0.3.json": json.dumps(WLASL), "videos/07069.mp4": ""})
    val = read("wlasl", "val", tmp_path)
    assert list(val.paths) == ["videos/07069.mp4", "videos/69302.mp4"]
    assert (names(val), missing(val)) == (["book", "drink"], [1])
    write(tmp_path, {f"Diving48_V2_{part}.json": json.dumps(dives) for part in ("train", "test")})
    make(tmp_path, "rgb/b/00001.jpg")
    dives = read("diving48", "val", tmp_path)
    assert names(dives) == ["Reverse Dive NoTwis TUCK", "Back 15som 05Twis FREE"]
    assert list(dives.paths)[1] == "rgb/b"


def test_hvu_and_its_list_of_mmaction2(tmp_path):
    rows = "Tags,youtube_id,time_start,time_end\nplant|sky,eeEC-oWWAM0,90.5,92.5\nsky,Np0jqmKPvSQ,7,9\n"
    write(tmp_path, {"annotations/hvu_val.csv": rows, "HVU_Train_V1.0.csv": rows})
    make(tmp_path, "videos_val/eeEC-oWWAM0_000905_000925.mp4", "videos/eeEC-oWWAM0_000090_000092_.mp4")
    val, train = read("hvu", "val", tmp_path), read("hvu", "train", tmp_path)
    assert list(val.ids) == ["eeEC-oWWAM0_000905_000925", "Np0jqmKPvSQ_000070_000090"]
    assert [[name for name, _, _ in labels(val, index)] for index in (0, 1)] == [["plant", "sky"], ["sky"]]
    assert missing(val) == missing(train) == [1]
    assert train.paths[0] == "videos/eeEC-oWWAM0_000090_000092_.mp4"
    entries = [{"filename": "a.mp4", "label": {"action": [5, 0], "scene": [1]}}]
    more = "splits: {train: {annotations: a.json}}\ncolumns: {path: filename}"
    records = table(tmp_path, more, {"a.json": json.dumps(entries)}, labels="multi")
    assert [name for name, _, _ in labels(records, 0)] == ["action 5", "action 0", "scene 1"]


def test_moments_and_ssv2_as_frames(tmp_path):
    song = "adult+female+singing"
    write(tmp_path, {"moments_categories.txt": f"clapping,0\n{song},1\n"})
    lists = {"trainingSet.csv": "clapping/a,b.mp4,clapping,3,0\n"}
    write(tmp_path, {**lists, "validationSet.csv": f"{song}/yt-x_35.mp4,{song},2,1\n"})
    assert names(read("moments_in_time", "train", tmp_path)) == ["clapping"]
    val = read("moments_in_time", "val", tmp_path)
    assert list(val.paths) == [f"validation/{song}/yt-x_35.mp4"]
    lists = {"labels.json": '{"Folding something": "0"}', "test.json": '[{"id": "1420"}]', "videos/7/000001.jpg": ""}
    write(tmp_path, {**lists, "validation.json": '[{"id": 7, "template": "Folding [something]"}]'})
    val = read("ssv2", "val", tmp_path)
    assert (list(val.paths), names(val), val.frame_rate) == (["videos/7"], ["Folding something"], 30)
    assert list(read_unlabeled(load_description("ssv2"), "test", tmp_path, ()).ids) == ["1420"]


HUB = """columns: {path: file_name}
splits: {train: {annotations: train/metadata.csv | train/metadata.jsonl | train/metadata.parquet, videos: train}}"""
HUB_ROWS = [{"file_name": "a.mp4", "label": "sit", "fps": 30.0}, {"file_name": "b/c.mp4", "label": "run", "fps": None}]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_metadata_of_hugging_face(tmp_path, ending):
    file = tmp_path / f"train/metadata.{ending}"
    make(tmp_path, f"train/metadata.{ending}")
    if ending == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(HUB_ROWS), file)
    elif ending == "jsonl":
        file.write_text("\n".join(map(json.dumps, HUB_ROWS)))
    else:
        file.write_text("file_name,label,fps\na.mp4,sit,30\nb/c.mp4,run,\n")
    records = table(tmp_path, HUB, {})
    assert (list(records.paths), names(records)) == (["train/a.mp4", "train/b/c.mp4"], ["sit", "run"])
    assert records.origin(1).endswith({"csv": "csv:3", "jsonl": "jsonl:2", "parquet": "parquet, entry 2"}[ending])


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused("metadata.parquet", "pyarrow"):
        table(tmp_path, HUB, {"train/metadata.parquet": "PAR1"})


@pytest.mark.parametrize(
    ("columns", "content", "message"),
    [
        ("", [{"path": "a.mp4", "lable": "sit"}], "a.json | 'label' | 'lable'"),
        ("columns: {start: form}", [{"path": "a.mp4", "label": "sit", "from": 1}], "a.json | 'form' | 'from'"),
        ("", [{"path": "a.mp4", "label": "sit"}, {"label": "sit"}], "a.json, entry 2 | 'path'"),
        ("columns: {path: video.0}", [{"video": [], "label": "sit"}], "a.json, entry 1 | 'video.0'"),
        ("", [{"path": "../a.mp4", "label": "sit"}], "a.json, entry 1 | '../a.mp4'"),
        ("entries: videos", {"video": [{"path": "a.mp4", "label": "sit"}]}, "a.json | 'videos' | `entries`"),
        ("", "[{", "a.json | JSON"),
        ("", '[{"path": "a.mp4", "label": NaN}]', "a.json, entry 1 | label"),
        ("", [], "a.json | no row"),
    ],
)
def test_mistakes_in_entries(tmp_path, columns, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    with refused(*message.split(" | ")):
        table(tmp_path, f"splits: {{train: {{annotations: a.json}}}}\n{columns}", {"a.json": text})


def test_keys_of_entries_are_for_json(tmp_path):
    with refused("a.csv", "`entries`"):
        table(tmp_path, "splits: {train: {annotations: a.csv}}\nentries: videos", {"a.csv": "path,label\na.mp4,x\n"})


def test_the_separator_of_labels_may_not_be_in_one(tmp_path):
    entries = json.dumps([{"path": "a.mp4", "label": ["a; b", "c"]}, {"path": "b.mp4"}])
    more = "splits: {train: {annotations: a.json}}"
    with refused("a.json, entry 1: label", "'a; b'", "`separator` ';'"):
        table(tmp_path, more, {"a.json": entries}, labels="multi")
    records = table(tmp_path, f"{more}\nseparator: '|'", {"a.json": entries}, labels="multi")
    assert [[name for name, _, _ in labels(records, index)] for index in (0, 1)] == [["a; b", "c"], []]
    with refused("a.json, entry 1: label", "'a; b'"):
        table(tmp_path, more, {"a.json": json.dumps([{"path": "a.mp4", "label": ["a; b"]}])}, labels="multi")


@pytest.mark.parametrize(
    ("content", "more", "found"),
    [
        ({"a.mp4": {"label": "x"}, "b.mp4": {"label": "y"}}, "columns: {path: key}", "a.mp4 x, b.mp4 y"),
        ([["a.mp4", "x"], ["b.mp4", "y"]], "columns: {path: value.0, label: value.1}", "a.mp4 x, b.mp4 y"),
        ({"x": {"at": ["a", "b"]}, "y": {"at": ["c"]}}, AT + "{path: value, label: key}", "a x, b x, c y"),
        ([{"kind": "x", "at": {"a": {"kind": "z"}, "b": 1}}], AT + "{path: key, label: kind}", "a z, b x"),
        ([{"path": "a.mp4", "label": {"name": "x", "id": 3}}], "columns: {label: label.name}", "a.mp4 x"),
        ([{"path": "a.mp4", "label": ["x", None]}], "", "a.mp4 x"),
    ],
)
def test_forms_of_json(tmp_path, content, more, found):
    records = table(tmp_path, f"splits: {{train: {{annotations: a.json}}}}\n{more}", {"a.json": json.dumps(content)})
    assert ", ".join(map(" ".join, zip(records.paths, names(records), strict=True))) == found


@pytest.mark.parametrize(
    ("pattern", "files", "found"),
    [
        ("p{group}_{label}_d{other}.avi", ["a/p01_box_d1_un.avi", "p12_wave_d4_un.avi", "cover.avi"], ["box", "wave"]),
        ("{label}_{group}.*", ["brush_hair_01.mkv", "b/sit_02.mp4"], ["sit", "brush_hair"]),
        ("{group}/{label}-{other}.*", ["s1/sit-1.mp4", "s2/c/stand up-2.mp4"], ["sit", "stand up"]),
    ],
)
def test_labels_in_file_names(tmp_path, caplog, pattern, files, found):
    text = f"format: file_names\nlabels: single\nsplits: {{train: {{videos: clips}}}}\nfiles: '{pattern}'\n"
    write(tmp_path, {"dataset.yaml": text})
    make(tmp_path, *(f"clips/{name}" for name in files))
    records = read(tmp_path, "train", tmp_path)
    assert sorted(names(records)) == sorted(found)
    assert ("1 files or links are no videos" in caplog.text) == ("cover.avi" in files)
    for wrong, named in (("lable", ("'lable'", "'label'")), ("other", ("{label}",))):
        write(tmp_path, {"dataset.yaml": text.replace("label}", f"{wrong}}}")})
        with refused("files", *named):
            read(tmp_path, "train", tmp_path)
