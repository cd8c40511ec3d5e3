"""Where videos are looked for, and which paths are refused."""

from pathlib import Path

import pytest

from tests.refusals import refused
from vidtl.annotations.layout import VideoFinder, check_relative, existing, find_annotations

FIELDS = {"label": "tying tie", "id": "-abc", "start": 7, "end": 17}
PATTERNS = ("{id}_{start:06d}_{end:06d}.*", "{label}/{id}_{start:06d}_{end:06d}.*", "{id}.*")


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize(
    "path",
    [
        "val/-abc_000007_000017.mp4",
        "val/-abc_000007_000017.mkv",
        "val/tying tie/-abc_000007_000017.mp4",
        "val/tying_tie/-abc_000007_000017.webm",
        "val/-abc.mp4",
        "replaced/-abc_000007_000017.mp4",
    ],
)
def test_every_layout_is_found(tmp_path: Path, path: str) -> None:
    make(tmp_path, path, "val/other.mp4", "val/tying tie/-abc_000007_000018.mp4")
    assert VideoFinder(tmp_path, ["val", "videos_val"], PATTERNS, ["replaced"]).find(FIELDS) == path


@pytest.mark.parametrize(
    "folder",
    [
        "massaging person's head (slowly)",
        "massaging_person's_head_(slowly)",
        "massaging_persons_head_slowly",  # torchvision.datasets.Kinetics
    ],
)
def test_class_folders_may_be_respelt(tmp_path: Path, folder: str) -> None:
    make(tmp_path, f"val/{folder}/-abc_000007_000017.mp4")
    fields = {**FIELDS, "label": "massaging person's head (slowly)"}
    assert VideoFinder(tmp_path, ["val"], PATTERNS, []).find(fields) == f"val/{folder}/-abc_000007_000017.mp4"


def test_replacements_and_earlier_patterns_come_first(tmp_path: Path) -> None:
    make(tmp_path, "val/-abc_000007_000017.mp4", "val/-abc.mp4", "replaced/-abc.mp4")
    assert VideoFinder(tmp_path, ["val"], PATTERNS, []).find(FIELDS) == "val/-abc_000007_000017.mp4"
    assert VideoFinder(tmp_path, ["val"], PATTERNS, ["replaced"]).find(FIELDS) == "replaced/-abc.mp4"


def test_absent_videos_are_expected_where_the_others_are(tmp_path: Path) -> None:
    make(tmp_path, "val/tying_tie/-abc_000007_000017.mp4")
    finder = VideoFinder(tmp_path, ["val"], PATTERNS, [])
    assert finder.expected_pattern() == "val/{id}_{start:06d}_{end:06d}.mp4"
    assert finder.find({**FIELDS, "id": "other"}) is None
    assert finder.find(FIELDS) is not None
    assert finder.expected_pattern() == "val/{label}/{id}_{start:06d}_{end:06d}.mp4"


@pytest.mark.parametrize("path", ["a.mp4", "a b/c-d_e/.hidden..mp4", "ä/b.mp4"])
def test_plain_paths_are_allowed(path: str) -> None:
    assert check_relative(path, "here") == path


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "a/../../b", "a/..", "http://host/a.mp4", "a\nb", "a\0b"])
def test_paths_that_could_leave_the_root_are_refused(path: str) -> None:
    with refused("here: ", repr(path)):
        check_relative(path, "here")


def test_a_missing_path_is_told_by_its_first_missing_part(tmp_path: Path) -> None:
    make(tmp_path, "kinetics/annotations/val.csv")
    with refused("'kinetic'", "'kinetics'"):
        existing(tmp_path / "kinetic" / "annotations" / "val.csv", "annotation file")
    with refused("'vla.csv'", "'val.csv'"):
        existing(tmp_path / "kinetics" / "annotations" / "vla.csv", "annotation file")


def test_annotations_are_found_with_underscores(tmp_path: Path) -> None:
    make(tmp_path, "Subject_1/ADL.csv")
    assert find_annotations(tmp_path, "Subject 1/ADL.csv") == [tmp_path / "Subject_1/ADL.csv"]
    with refused("annotation file"):
        find_annotations(tmp_path, "Subject 2/ADL.csv")
    with refused("is not a file"):
        find_annotations(tmp_path, "Subject_1")


def test_annotations_may_have_alternatives_and_patterns(tmp_path: Path) -> None:
    make(tmp_path, "lists/b_split1.txt", "lists/a_split1.txt", "lists/a_split2.txt", "new.txt", "old.csv")
    assert find_annotations(tmp_path, "newer.txt | new.txt | old.csv") == [tmp_path / "new.txt"]
    both = [tmp_path / "lists/a_split1.txt", tmp_path / "lists/b_split1.txt"]
    assert find_annotations(tmp_path, "lists/*_split1.txt") == both
    with refused("' has no file like '", "_split3.txt"):
        find_annotations(tmp_path, "lists/*_split3.txt")
    with refused("'newer.txt'", "'new.txt'"):
        find_annotations(tmp_path, "newer.txt | newest.txt")


def test_paths_are_looked_for_in_every_folder(tmp_path: Path) -> None:
    make(tmp_path, "b/x/1.mp4", "replaced/x/2.mp4", "a/x/2.mp4")
    finder = VideoFinder(tmp_path, ["a", "b"], (), ["replaced"])
    assert [finder.place(f"x/{name}.mp4") for name in (1, 2, 3)] == ["b/x/1.mp4", "replaced/x/2.mp4", "a/x/3.mp4"]
    assert VideoFinder(tmp_path, ["."], (), []).place("x/1.mp4") == "x/1.mp4"
