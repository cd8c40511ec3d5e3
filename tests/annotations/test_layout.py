"""Search for videos and annotation files, and refused paths."""

from pathlib import Path

import pytest

from tests.annotations.sets import make, read, write
from tests.refusals import refused
from vidtl.annotations.layout import AnnotationPlaces, VideoFinder, check_relative
from vidtl.errors import UserError, existing

FIELDS = {"label": "tying tie", "id": "-abc", "start": 7, "end": 17}
TABLE = "format: labelled_csv\nlabels: single\nsplits: {train: {annotations: t.csv}}\n"
PATTERNS = ("{id}_{start:06d}_{end:06d}.*", "{label}/{id}_{start:06d}_{end:06d}.*", "{id}.*")


@pytest.mark.parametrize(
    "folder",
    [
        "massaging person's head (slowly)",
        "massaging_person's_head_(slowly)",
        "massaging_persons_head_slowly",  # torchvision.datasets.Kinetics
    ],
)
def test_spellings_of_class_folders(tmp_path, folder):
    make(tmp_path, f"val/{folder}/-abc_000007_000017.mp4")
    fields = {**FIELDS, "label": "massaging person's head (slowly)"}
    assert VideoFinder(tmp_path, ["val"], PATTERNS, []).find(fields) == f"val/{folder}/-abc_000007_000017.mp4"


def test_replacements_and_earlier_patterns_come_first(tmp_path):
    make(tmp_path, "val/-abc_000007_000017.mp4", "val/-abc.mp4", "replaced/-abc.mp4")
    assert VideoFinder(tmp_path, ["val"], PATTERNS, []).find(FIELDS) == "val/-abc_000007_000017.mp4"
    assert VideoFinder(tmp_path, ["val"], PATTERNS, ["replaced"]).find(FIELDS) == "replaced/-abc.mp4"


def test_endings_match_in_any_case_and_accents_in_any_form(tmp_path):
    make(tmp_path, "val/one.MOV", "val/one.avi", "val/two.avi", "val/two.AVI", "val/cafe\u0301/3.Mts")
    finder = VideoFinder(tmp_path, ["val"], ["{label}/{id}.*", "{id}.*"], [])
    fields = [("caf\u00e9", "3"), ("", "one"), ("", "two"), ("", "three")]
    found = [finder.find({"label": label, "id": name}) for label, name in fields]
    assert found == ["val/cafe\u0301/3.Mts", "val/one.avi", "val/two.avi", None]


def test_paths_that_could_leave_the_root_are_refused():
    for path in ("a.mp4", "a b/c-d_e/.hidden..mp4", "ä/b.mp4"):
        assert check_relative(path, "here") == path
    for path in ("", "/etc/passwd", "../a", "a/../../b", "a/..", "http://host/a.mp4", "a\nb", "a\0b"):
        with refused("here: ", repr(path)):
            check_relative(path, "here")


def test_a_missing_path_is_refused_with_its_first_missing_part(tmp_path):
    make(tmp_path, "sets/lists/val.csv")
    for path, wrong, right in (("set/lists/val.csv", "set", "sets"), ("sets/lists/vla.csv", "vla.csv", "val.csv")):
        with refused(repr(wrong), repr(right)):
            existing(tmp_path / path, "annotation file")
    cases = {"other/x.csv": ["similar"], "sets/x.csv": ["allowed: lists"], "sets/lists/val.csv/a": ["is a file"]}
    for path, parts in cases.items():
        with refused(repr(str(tmp_path / path)), *parts):
            existing(tmp_path / path, "annotation file")
    with pytest.raises(UserError) as caught:
        existing(Path("/qqqqqqqqqqqq"), "data.root")
    assert "allowed" not in str(caught.value)
    assert "'/' has no 'qqqqqqqqqqqq'" in str(caught.value)


def test_annotations_are_found_with_underscores_alternatives_and_patterns(tmp_path):
    find = AnnotationPlaces(tmp_path, tmp_path).find
    make(tmp_path, "Subject_1/ADL.csv")
    assert find("Subject 1/ADL.csv") == [tmp_path / "Subject_1/ADL.csv"]
    with refused("annotation file"):
        find("Subject 2/ADL.csv")
    with refused("is not a file"):
        find("Subject_1")
    make(tmp_path, "lists/b_split1.txt", "lists/a_split1.txt", "lists/a_split2.txt", "new.txt", "old.csv")
    assert find("newer.txt | new.txt | old.csv") == [tmp_path / "new.txt"]
    both = [tmp_path / "lists/a_split1.txt", tmp_path / "lists/b_split1.txt"]
    assert find("lists/*_split1.txt") == both
    with refused("lists", "'*_split3.txt'"):
        find("lists/*_split3.txt")
    with refused("'newer.txt'", "'new.txt'"):
        find("newer.txt | newest.txt")


def test_annotated_paths_are_searched_in_every_folder(tmp_path):
    make(tmp_path, "b/x/1.mp4", "replaced/x/2.mp4", "a/x/2.mp4")
    finder = VideoFinder(tmp_path, ["a", "b"], (), ["replaced"])
    assert [finder.place(f"x/{name}.mp4") for name in (1, 2, 3)] == ["b/x/1.mp4", "replaced/x/2.mp4", "a/x/3.mp4"]
    assert VideoFinder(tmp_path, ["."], (), []).place("x/1.mp4") == "x/1.mp4"


def test_fields_and_aliases_that_leave_the_root_together_are_refused(tmp_path):
    make(tmp_path, "secret/x.mp4", "root/v/x.mp4")
    write(
        tmp_path / "root",
        {"dataset.yaml": f"{TABLE}files: '{{a}}{{b}}/secret/x.mp4'\n", "t.csv": "a,b,label\n.,.,sit\n"},
    )
    with refused("t.csv:2", "'../secret/x.mp4'"):
        read(tmp_path / "root", "train", tmp_path / "root")
    alias = TABLE.replace("labelled_csv", "kinetics_csv") + "files: 'v/{label}/{id}.mp4'\naliases: {up: ../../secret}\n"
    write(tmp_path / "root", {"dataset.yaml": alias, "t.csv": "label,youtube_id,time_start,time_end\nup,x,0,1\n"})
    with refused("t.csv:2", "'v/../../secret/x.mp4'"):
        read(tmp_path / "root", "train", tmp_path / "root")
