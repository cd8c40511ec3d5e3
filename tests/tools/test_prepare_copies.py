"""`tools/prepare.py --transcode`: refusals before any work, annotations of copies, and arrays of jobs."""

import shutil

import prepare
import pytest

from tests.annotations.sets import write
from tests.refusals import assert_refusal
from tests.tools.conftest import CLASS_FOLDERS, copy_videos
from vidtl.annotations.description import load_description, read_records
from vidtl.data.manifest import default_file
from vidtl.prepare.transcode_set import copy_annotations


def test_files_that_are_no_copies_are_never_replaced(toy, tmp_path, run_main):
    own = tmp_path / "own" / next((toy / "videos/val").iterdir()).relative_to(toy)
    own.parent.mkdir(parents=True)
    own.write_text("the only copy of it")
    options = ["--dataset", "toy", "--root", toy, "--output", tmp_path / "scan", "--transcode", tmp_path / "own"]
    _, err = run_main(prepare.main, *options, code=2)
    assert_refusal(err, "--transcode", tmp_path / "own")
    assert own.read_text() == "the only copy of it"
    assert not (tmp_path / "scan").exists()


def test_parts_are_joined_all_or_none_and_again(toy, tmp_path, run_main):
    root, fast = tmp_path / "root", tmp_path / "fast"
    shutil.copytree(toy, root)
    options = ["--dataset", "toy", "--root", root, "--splits", "val", "--workers", 1, "--transcode", fast]
    run_main(prepare.main, *options[:-2], "--shard", "1/2")
    run_main(prepare.main, *options, "--shard", "2/2")
    for _ in range(2):
        _, err = run_main(prepare.main, *options, "--merge", code=2)
        assert_refusal(err, fast / ".vidtl", "--shard 1/2")
    assert not default_file(root).exists()
    run_main(prepare.main, *options, "--shard", "1/2")
    written = []
    for _ in range(2):
        out, err = run_main(prepare.main, *options, "--merge")
        assert "16 of 16 files" in out
        written.append([default_file(folder).read_bytes() for folder in (root, fast)])
    assert written[0] == written[1]
    # What an interrupted merge leaves: one folder joined, the other one not, and the missing job done again.
    run_main(prepare.main, *options, "--shard", "2/2")
    out, _ = run_main(prepare.main, *options, "--merge")
    assert f"parts of 2 that are missing: 1; their files are as {default_file(root)} has them" in out


@pytest.fixture
def listed(toy, tmp_path):
    """Two videos in a list of absolute paths, as VideoMAE writes it: a description and its root."""
    folder, root = tmp_path / "listed", tmp_path / "root"
    videos = sorted((toy / "videos/val").iterdir())[:2]
    copy_videos(root / "clips", {f"{number}.mp4": video for number, video in enumerate(videos)})
    (root / "list.txt").write_text("\ufeff" + "".join(f"{root}/clips/{number}.mp4 {number}\r\n" for number in (0, 1)))
    (root / "names.txt").write_text("run\nsit\n")
    splits = "splits: {val: {annotations: list.txt, videos: clips}}\n"
    write(folder, {"dataset.yaml": f"format: path_list\nlabels: single\nclasses: names.txt\n{splits}"})
    return folder, root


def test_absolute_paths_lead_to_the_copies(listed, tmp_path, run_main):
    folder, root = listed
    fast = tmp_path / "fast"
    out, _ = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 1, "--transcode", fast)
    assert "2 of 2 files" in out
    copied, original = (read_records(load_description(str(folder)), "val", each) for each in (fast, root))
    assert [*copied.paths] == [*original.paths] == ["clips/0.mp4", "clips/1.mp4"]
    assert (root / "list.txt").read_bytes().replace(bytes(root), bytes(fast)) == (fast / "list.txt").read_bytes()


def test_absolute_paths_of_a_csv_file_lead_to_the_copies(tmp_path):
    root, fast = tmp_path / "root", tmp_path / "fast"
    root.mkdir()
    (root / "labels.csv").write_text(f'label,path\nrun,{root}/a.mp4\nrun,"{root}/b, c.mp4"\nrun,x{root}/d.mp4\n')
    (root / "dataset.yaml").write_text("format: labelled_csv\nlabels: single\nsplits: {val: {annotations: labels.csv}}")
    copy_annotations(load_description("", root), ["val"], root, fast)
    assert load_description("", fast).splits == load_description("", root).splits
    expected = f'label,path\nrun,{fast}/a.mp4\nrun,"{fast}/b, c.mp4"\nrun,x{root}/d.mp4\n'
    assert (fast / "labels.csv").read_text() == expected


@pytest.mark.parametrize("linked", [".vidtl", "scan/manifest.unfinished", "fast/.vidtl", "fast/clips", "fast/list.txt"])
def test_nothing_is_written_through_links(listed, tmp_path, run_main, linked):
    """The folders that are named may be links, nothing in them may lead out."""
    folder, root = listed
    victim, link = tmp_path / "victim", (root if linked == ".vidtl" else tmp_path) / linked
    options = ["--dataset", folder, "--root", root, "--workers", 1, "--transcode", tmp_path / "fast"]
    options += ["--output", tmp_path / "scan"] if linked != ".vidtl" else []
    for name in ("scan", "fast"):
        (tmp_path / f"real_{name}").mkdir()
        (tmp_path / name).symlink_to(tmp_path / f"real_{name}")
    if linked in ("fast/clips", "fast/list.txt"):
        run_main(prepare.main, *options)
        shutil.rmtree(link) if link.is_dir() else link.unlink()
    victim.mkdir() if "." not in link.name[1:] else victim.touch()
    link.symlink_to(victim)
    run_main(prepare.main, *options, refused=[link, "link"])
    assert not (any(victim.iterdir()) if victim.is_dir() else victim.read_bytes())


def test_linked_videos_are_prepared_unless_told(listed, tmp_path, run_main):
    folder, root = listed
    (root / "clips/1.mp4").rename(tmp_path / "elsewhere")
    (root / "clips/1.mp4").symlink_to(tmp_path / "elsewhere")
    for follow in ("false", "true"):
        options = ["--dataset", folder, "--root", root, "--workers", 1, "--follow_links", follow]
        out, _ = run_main(prepare.main, *options, "--transcode", tmp_path / "fast")
        assert ("lies outside the data root" in out) == (follow == "false")
        assert ("2 of 2 files" if follow == "true" else "1 of 2 files") in out


def test_a_folder_that_a_list_cannot_name(listed, tmp_path, run_main):
    folder, root = listed
    fast = tmp_path / "fast, small"
    _, err = run_main(prepare.main, "--dataset", folder, "--root", root, "--transcode", fast, code=2)
    assert_refusal(err, "list.txt:1", "--transcode")
    assert not fast.exists()
    assert not default_file(root).exists()


def test_classes_of_folders_need_all_splits(toy, tmp_path, run_main):
    root, fast = tmp_path / "root", tmp_path / "fast"
    copy_videos(root, dict.fromkeys(("train/run/a.mp4", "val/run/a.mp4"), next((toy / "videos/val").iterdir())))
    (tmp_path / "dataset.yaml").write_text(CLASS_FOLDERS)
    options = ["--dataset", tmp_path, "--root", root, "--workers", 1, "--transcode", fast]
    _, err = run_main(prepare.main, *options, "--splits", "train", code=2)
    assert_refusal(err, "--splits", "val")
    assert not fast.exists()
    run_main(prepare.main, *options, "--splits", "val,train")
