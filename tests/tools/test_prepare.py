"""`tools/prepare.py`: report and copies."""

import json
import os
import shutil

import numpy as np
import prepare
import pytest

from tests.annotations.sets import write
from tests.refusals import assert_refusal
from tests.tools.conftest import CLASS_FOLDERS, copy_videos
from vidtl.annotations.description import load_description, read_records
from vidtl.data.manifest import Manifest, default_file
from vidtl.video import open_video

DESCRIPTION = """
format: labelled_csv
labels: single
splits: {train: {annotations: labels.csv}, val: {annotations: labels.csv}}
columns: {path: path, label: label, split: split}
expected: {train: 8}
"""

# Indexed, counted, rotated, variable rate, and several ways to be broken.
VIDEOS = (
    "videos/decord__video_90.mov",
    "videos/mmaction2__part_0.mp4",
    "videos/media__sample-with-large-length.avi",
    "videos/ExoPlayer__sample_fragmented.mp4",
    "videos/media__sample_rotate_and_reflect.mp4",
)
BROKEN = ("broken/zero_byte.mp4", "broken/jpeg_named.mp4", "broken/ExoPlayer__sample_opus.mp4")


@pytest.fixture
def mixed(shared_data, tmp_path):
    """A data set of real and broken files with a missing and a repeated one: its description and its root."""
    folder, root = tmp_path / "mixed", tmp_path / "root"
    copy_videos(root, {path: shared_data / path for path in (*VIDEOS, *BROKEN)})
    shutil.copy2(root / VIDEOS[0], root / "again.mov")
    paths = [*VIDEOS, *BROKEN, "again.mov", "videos/mmaction2_part_0.mp4"]
    rows = [f"{path},{'ab'[number % 2]},{'train' if number % 3 else 'val'}" for number, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows, "nowhere/x.mp4,c,train"]) + "\n")
    write(folder, {"dataset.yaml": DESCRIPTION})
    return folder, root


def test_the_report_and_the_manifest_of_a_mixed_set(mixed, run_main):
    folder, root = mixed
    out, _ = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 2, "--depth", "frames")
    report = json.loads((root / ".vidtl/report.json").read_text())
    assert (root / ".vidtl/report.txt").read_text() in out
    counts = ("annotated", "missing", "unreadable")
    assert [sum(split[count] for split in report["splits"].values()) for count in counts] == [11, 2, 3]
    assert {row["path"]: row["near"] for row in report["missing"]} == {
        "videos/mmaction2_part_0.mp4": "videos/mmaction2__part_0.mp4",
        "nowhere/x.mp4": "there is no folder 'nowhere'",
    }
    broken = {file["path"]: kind["kind"] for kind in report["broken"] for file in kind["files"]}
    reasons = ["the file is empty", "no video stream: it begins as an image does", "no video stream"]
    assert [broken[path] for path in BROKEN] == reasons
    (group,) = report["duplicates"]["same_content"]
    assert group["paths"] == ["again.mov", "videos/decord__video_90.mov"]
    assert all(split["c"]["readable"] == 0 for split in report["classes"].values())
    by_path = {entry.path: entry for entry in Manifest(default_file(root))}
    for path in VIDEOS:
        with open_video(root / path) as video:
            assert by_path[path].num_decoded == by_path[path].num_frames == len(video.times_s)


def test_copies_are_a_root_of_their_own(mixed, tmp_path, run_main):
    folder, root = mixed
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}
    output = tmp_path / "fast"
    options = ["--dataset", folder, "--root", root, "--output", tmp_path / "scan", "--workers", 2]
    options += ["--transcode", output, "--short_side", 160]
    out, _ = run_main(prepare.main, *options)
    for words in ("6 of 11 files", "clips per CPU second", f"--data.root {output}"):
        assert words in out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    description = load_description(str(folder))
    for path in VIDEOS:
        with open_video(root / path) as video, open_video(output / path, root=output) as copy:
            assert np.allclose(copy.times_s, video.times_s, rtol=0, atol=1e-9)
            assert min(copy.height, copy.width) == min(160, min(video.height, video.width))
            assert (copy.height < copy.width) == (video.height < video.width)
            assert copy.height % 2 == copy.width % 2 == 0
            assert copy.color == video.color
    for split in ("train", "val"):
        copied, original = (read_records(description, split, each).ids for each in (output, root))
        assert [*copied] == [*original]
    copies = {entry.path: entry for entry in Manifest(default_file(output))}
    assert {path for path, entry in copies.items() if entry.is_readable} == {*VIDEOS, "again.mov"}
    assert copies["broken/zero_byte.mp4"].reason == "not copied: the file is empty"

    made = {path: (output / path).stat().st_ino for path in VIDEOS}
    content = default_file(output).read_bytes()
    run_main(prepare.main, *options)
    assert {path: (output / path).stat().st_ino for path in VIDEOS} == made  # nothing is done twice
    assert default_file(output).read_bytes() == content
    run_main(prepare.main, *options[:-1], 128, refused=["short_side", 160, 128])  # after the warning on `expected`


def test_copies_of_class_folders_leave_out_what_cannot_be_copied(toy, tmp_path, run_main):
    folder, root = tmp_path / "set", tmp_path / "root"
    videos = sorted((toy / "videos/val").iterdir())
    for split in ("train", "val"):
        copy_videos(root, {f"{split}/{'ab'[n % 2]}/{video.name}": video for n, video in enumerate(videos[:4])})
    (root / "train/a/broken.mp4").write_text("no video")
    (root / "train/a" / os.fsdecode(b"\xe9.txt")).write_text("no video either")
    write(folder, {"dataset.yaml": CLASS_FOLDERS})
    output = tmp_path / "fast"
    out, _ = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 1, "--transcode", output)
    assert "8 of 9 files" in out
    description = load_description(str(folder))
    copied, original = (read_records(description, "train", each) for each in (output, root))
    assert [*copied.ids] == [name for name in original.ids if not name.endswith("broken.mp4")]
    assert copied.classes == original.classes


def test_near_names_may_be_of_any_bytes(mixed, run_main):
    folder, root = mixed
    (root / VIDEOS[1]).rename(root / "videos" / os.fsdecode(b"mmaction2__part_0\xe9.mp4"))
    out, _ = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 1)
    missing = json.loads((root / ".vidtl/report.json").read_text())["missing"]
    assert {row["near"] for row in missing} >= {"videos/" + os.fsdecode(b"mmaction2__part_0\xe9.mp4")}
    assert "mmaction2__part_0\\udce9.mp4" in out


def test_a_test_list_without_labels_is_left_out_unless_named(tmp_path, run_main):
    header = "youtube_id,time_start,time_end,split"
    for split in ("train", "val"):
        write(tmp_path, {f"annotations/{split}.csv": f"label,{header}\nabseiling,{split},1,11,{split}\n"})
    write(tmp_path, {"annotations/test.csv": f"{header}\na,17,27,test\n"})
    options = ["--dataset", "kinetics600", "--root", tmp_path]
    out, _ = run_main(prepare.main, *options)
    assert "split test: its annotation has no labels; left out (--splits names" in out
    assert {*json.loads((tmp_path / ".vidtl/report.json").read_text())["splits"]} == {"train", "val"}
    _, err = run_main(prepare.main, *options, "--splits", "test", code=2)
    assert "test.csv:1: no column 'label'" in err
    lists = {"classInd.txt": "1 Bow\n2 Sit\n", "trainlist01.txt": "Bow/a.avi 1\n", "testlist01.txt": "Sit/b.avi\n"}
    write(tmp_path / "ucf", lists)
    run_main(prepare.main, "--dataset", "ucf101", "--root", tmp_path / "ucf")  # the folder is the label
    assert {*json.loads((tmp_path / "ucf/.vidtl/report.json").read_text())["splits"]} == {"train", "val"}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--shard", "3/2"], ["--shard", "'3/2'", "i/n"]),
        (["--shard", "1/2", "--merge"], ["--merge", "--shard"]),
        (["--merge"], ["no parts"]),
        (["--workers", "0"], ["--workers", "'0'"]),
        (["--time_limit", "nan"], ["--time_limit is nan", "86400"]),
        (["--crf", "22"], ["--crf", "--transcode"]),
        (["--splits", "trian"], ["'trian'", "'train'"]),
        (["--transcode", "x", "--short_side", "33"], ["--short_side is 33"]),
        (["--transcode", "x", "--crf", "60"], ["--crf is 60"]),
        (["--depth", "bytes"], ["--depth", "'bytes'", "packets"]),
        (["--output", "/proc/nowhere"], ["/proc/nowhere", "--output"]),
    ],
)
def test_mistakes_end_in_one_line(toy, tmp_path, monkeypatch, run_main, options, parts):
    monkeypatch.chdir(tmp_path)
    _, err = run_main(prepare.main, "--dataset", "toy", "--root", toy, *options, code=2)
    assert_refusal(err, *parts)
    assert not default_file(toy).exists()
