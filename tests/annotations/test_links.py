"""Links in a data root: those to media are followed without running away, lists are read only where they may be."""

import pytest

from tests.annotations.sets import make, names, read, write
from tests.refusals import refused
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.video_files import find_videos

FOLDERS = "format: class_folders\nlabels: single\nsplits: {train: {videos: train}}\n"
LIST = "format: labelled_csv\nlabels: single\nsplits: {train: {annotations: train.csv}}\n"
ROWS = "path,label\na.mp4,run\nb.mp4,sit\n"
SECRET = "path,label\na.mp4\nTOPSECRET\n"


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
