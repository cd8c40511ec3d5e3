"""Search for videos and annotation files, also through links, and refused paths."""

from pathlib import Path

import pytest

from tests.annotations.sets import make, names, read, write
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.layout import AnnotationPlaces, VideoFinder, check_relative
from vidtl.annotations.video_files import find_videos
from vidtl.errors import UserError, existing

FIELDS = {"label": "tying tie", "id": "-abc", "start": 7, "end": 17}
FOLDERS = "format: class_folders\nlabels: single\nsplits: {train: {videos: train}}\n"
LIST = "format: labelled_csv\nlabels: single\nsplits: {train: {annotations: train.csv}}\n"
ROWS = "path,label\na.mp4,run\nb.mp4,sit\n"
SECRET = "path,label\na.mp4\nTOPSECRET\n"
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
    with refused("data.dataset 'ours'", "''", "class folders", "train.csv"):
        AnnotationPlaces(tmp_path, Path("ours")).find("train.csv")
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
    files = {"dataset.yaml": f"{LIST}files: '{{a}}{{b}}/secret/x.mp4'\n", "train.csv": "a,b,label\n.,.,sit\n"}
    write(tmp_path / "root", files)
    with refused("train.csv:2", "'../secret/x.mp4'"):
        read(tmp_path / "root", "train", tmp_path / "root")
    alias = LIST.replace("labelled_csv", "kinetics_csv") + "files: 'v/{label}/{id}.mp4'\naliases: {up: ../../secret}\n"
    write(tmp_path / "root", {"dataset.yaml": alias, "train.csv": "label,youtube_id,time_start,time_end\nup,x,0,1\n"})
    with refused("train.csv:2", "'v/../../secret/x.mp4'"):
        read(tmp_path / "root", "train", tmp_path / "root")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    return root


def test_linked_folders_and_files_are_read_once(tmp_path, root):
    make(root, "train/run/a.mp4", "train/.store/c.mp4")
    make(tmp_path, "disk/sit/b.mp4", "disk/sit/deep/d.mp4", "disk/clip.avi")
    (root / "train/sit").symlink_to(tmp_path / "disk/sit")
    (root / "train/run/c").symlink_to("../.store")
    (root / "train/run/x.avi").symlink_to(tmp_path / "disk/clip.avi")
    (root / "train/walk").symlink_to(tmp_path / "disk/sit/deep")  # read as part of sit
    write(tmp_path, {"set/dataset.yaml": FOLDERS})
    records = read(tmp_path / "set", "train", root)
    below = ["run/a.mp4", "run/c/c.mp4", "run/x.avi", "sit/b.mp4", "sit/deep/d.mp4"]
    assert list(records.paths) == [f"train/{name}" for name in below]
    assert names(records) == ["run"] * 3 + ["sit"] * 2


@pytest.mark.parametrize("target", ["/", "..", "../..", ".", "../../root", "../run", "run/below", "loop"])
def test_no_link_runs_away(tmp_path, root, caplog, target):
    make(root, "train/run/a.mp4", "train/run/below/b.mp4")
    (root / "train/loop").symlink_to(target)
    (root / "train/run/below/loop").symlink_to(target)
    write(tmp_path, {"set/dataset.yaml": FOLDERS})
    assert list(read(tmp_path / "set", "train", root).paths) == ["train/run/a.mp4", "train/run/below/b.mp4"]
    assert "loop" in caplog.text
    found = find_videos([root / "train"])
    assert [video.path.name for video in found.videos] == ["a.mp4", "b.mp4"]
    assert root / "train/loop" in found.ignored


def test_a_split_that_is_a_link_to_a_folder_above_the_root_is_refused(tmp_path, root):
    (root / "train").symlink_to("/")
    write(tmp_path, {"set/dataset.yaml": FOLDERS})
    with refused(root / "train", "above"):
        read(tmp_path / "set", "train", root)


@pytest.mark.parametrize("linked", ["train.csv", "classes.txt", "dataset.yaml"])
def test_lists_outside_the_root_are_refused_before_they_are_read(tmp_path, root, linked):
    write(root, {"train.csv": ROWS, "classes.txt": "run\nsit\n", "dataset.yaml": LIST + "classes: classes.txt\n"})
    write(tmp_path, {"secret": SECRET})
    (root / linked).unlink()
    (root / linked).symlink_to(tmp_path / "secret")
    with refused(root / linked, "outside"):
        read(root, "train", root)
    (root / linked).unlink()
    write(root, {linked: {"train.csv": ROWS, "classes.txt": "run\nsit\n"}.get(linked, "")})
    for path in (tmp_path / "secret", "/etc/passwd"):  # a stranger's description names a file by its absolute path
        write(root, {"dataset.yaml": LIST.replace("train.csv", str(path))})
        with refused(path, "outside"):
            read(root, "train", root)


def test_lists_beside_the_description_or_at_an_absolute_path(tmp_path, root):
    mine = tmp_path / "mine"
    write(mine, {"dataset.yaml": LIST + "classes: lists/classes.txt\n", "lists/classes.txt": "sit\nrun\n"})
    write(tmp_path, {"elsewhere/train.csv": ROWS})
    (mine / "train.csv").symlink_to(tmp_path / "elsewhere/train.csv")
    records = read(mine, "train", root)
    assert (records.classes.names, records.annotation) == (("sit", "run"), mine / "train.csv")
    write(root, {"train.csv": ROWS + "c.mp4,sit\n"})
    assert len(read(mine, "train", root)) == 2  # those beside dataset.yaml come first
    (mine / "train.csv").unlink()
    assert len(read(mine, "train", root)) == 3
    for pattern in ("train.csv", "t*.csv", "none.csv | train.csv"):
        write(mine, {"dataset.yaml": LIST.replace("train.csv", f"'{tmp_path}/elsewhere/{pattern}'")})
        expected = 3 if "|" in pattern else 2  # the second choice is relative
        assert len(read(mine, "train", root)) == expected


def test_a_snapshot_of_a_hub_repository(tmp_path):
    repository = tmp_path / "datasets--me--sports"
    snapshot = repository / "snapshots/0a1b"
    write(repository, {"blobs/1": LIST + "classes: classes.txt\n", "blobs/2": ROWS, "blobs/3": "sit\nrun\n"})
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("dataset.yaml", "train.csv", "classes.txt"), start=1):
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    records = read(snapshot, "train", snapshot)
    assert (records.classes.names, names(records)) == (("sit", "run"), ["run", "sit"])
    write(tmp_path, {"mine/dataset.yaml": LIST})
    with refused(snapshot / "train.csv", "outside"):
        read_records(load_description(str(tmp_path / "mine")), "train", snapshot, follow_links=False)
    (snapshot / "train.csv").unlink()
    write(tmp_path, {"secret": SECRET})
    (snapshot / "train.csv").symlink_to(tmp_path / "secret")
    with refused(snapshot / "train.csv", "outside"):
        read(snapshot, "train", snapshot)
