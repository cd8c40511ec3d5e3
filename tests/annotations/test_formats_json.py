"""AViD's real validation file, and Something-Something V2's lists in their official form."""

import json
import shutil
from pathlib import Path

import pytest

from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.records import Records

LABELS = {"Holding something next to something": "1", "Folding something": "0"}
ENTRIES = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {"id": "42326", "label": "folding a towel", "template": "Folding [something]", "placeholders": ["a towel"]},
]


def test_avid(shared_data: Path, tmp_path: Path) -> None:
    official = shared_data / "annotations" / "avid" / "avid_val.json"
    shutil.copy(official, tmp_path / "avid_val.json")
    shutil.copy(official, tmp_path / "avid_train.json")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "yrpxojhg.mp4").touch()
    records = read_records(load_description("avid"), "val", tmp_path)
    content = {name: label or "none" for name, label in json.loads(official.read_text()).items()}
    assert len(records) == 46_850
    assert records.classes.names == tuple(sorted(set(content.values())))
    assert len(records.classes) == 880
    assert list(records.ids) == list(content)
    assert [records.classes.names[label] for label in records.label_classes] == list(content.values())
    assert list(records.paths)[:2] == ["val/yrpxojhg.mp4", "videos/gzsyeiym.mp4"]


def read_ssv2(root: Path, entries: object = ENTRIES, labels: object = LABELS) -> Records:
    (root / "labels").mkdir()
    (root / "labels" / "labels.json").write_text(json.dumps(labels))
    (root / "labels" / "train.json").write_text(json.dumps(entries))
    (root / "20bn-something-something-v2").mkdir()
    (root / "20bn-something-something-v2" / "42326.webm").touch()
    return read_records(load_description("ssv2"), "train", root)


def test_ssv2(tmp_path: Path) -> None:
    records = read_ssv2(tmp_path)
    assert records.classes.names == ("Folding something", "Holding something next to something")
    assert records.label_classes.tolist() == [1, 0]
    assert list(records.ids) == ["78687", "42326"]
    assert records.origin(1) == records.select([1]).origin(0) == f"{tmp_path / 'labels/train.json'}, entry 2"
    assert list(records.paths)[1] == "20bn-something-something-v2/42326.webm"


def test_ssv2_by_its_older_names(tmp_path: Path) -> None:
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(LABELS))
    (tmp_path / "something-something-v2-validation.json").write_text(json.dumps(ENTRIES[:1]))
    records = read_records(load_description("ssv2"), "val", tmp_path)
    assert records.label_classes.tolist() == [1]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"id": "1"}, "train.json | a list of entries is needed"),
        ([*ENTRIES, "x"], "train.json, entry 3 | 'x' | 'id'"),
        ([{"id": "1"}], "train.json, entry 1 | 'template'"),
        ([{"id": "../1", "template": "Folding [something]"}], "train.json, entry 1 | '../1'"),
        ([{"id": "1", "template": "Fold [something]"}], "'Folding something'"),
        ([ENTRIES[0], ENTRIES[0]], "train.json, entry 2 | '78687' | train.json, entry 1"),
        ([], "train.json | no row belongs to this split"),
    ],
)
def test_mistakes_name_file_and_entry(tmp_path: Path, entries: object, message: str) -> None:
    with refused(*message.split(" | ")):
        read_ssv2(tmp_path, entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a.mp4": "x", "a.mp4": "y"}', "avid_val.json, entry 2 | 'a.mp4'"),
        ('{"a.mp4": 3}', "avid_val.json, entry 1 | 'a.mp4'"),
        ('["a.mp4"]', "avid_val.json, entry 1 | 'a.mp4'"),
        ('{"a.mp4": "x"', "avid_val.json | not a JSON file"),
        ('{"/a.mp4": "x"}', "avid_val.json, entry 1 | '/a.mp4'"),
    ],
)
def test_avid_mistakes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "avid_val.json").write_text(text)
    (tmp_path / "avid_train.json").write_text('{"b.mp4": "x"}')
    with refused(*message.split(" | ")):
        read_records(load_description("avid"), "val", tmp_path)
