"""`tools/prepare.py`: the same manifest however it came about, a report that misses nothing, copies that just work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import prepare
import pytest

from tests.environment import REPOSITORY
from tests.prepare.stubborn_scan import stubborn_scan
from vidtl.data.description import load_description, read_records
from vidtl.data.manifest import Manifest, default_file
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.prepare.scanning import ScanPlan, scan_set
from vidtl.prepare.shards import ManifestFolder
from vidtl.runtime.progress import make_progress
from vidtl.runtime.shard import Shard
from vidtl.video import open_video

Run = Callable[..., tuple[int, str, str]]

DESCRIPTION = """
format: labelled_csv
labels: single
splits:
  train: {annotations: labels.csv}
  val: {annotations: labels.csv}
columns: {path: path, label: label, split: split}
expected: {train: 8}
"""

# Of every sort: indexed, counted, rotated, variable rate, and several ways to be broken.
VIDEOS = (
    "videos/decord__video_90.mov",
    "videos/mmaction2__part_0.mp4",
    "videos/media__sample-with-large-length.avi",
    "videos/ExoPlayer__bear-vp9.webm",
    "videos/media__sample_rotate_and_reflect.mp4",
)
BROKEN = ("broken/zero_byte.mp4", "broken/jpeg_named.mp4", "broken/ExoPlayer__sample_opus.mp4")


@pytest.fixture
def mixed(shared_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A data set of real and broken files with a missing and a repeated one: its description and its root."""
    folder, root = tmp_path / "mixed", tmp_path / "root"
    for path in (*VIDEOS, *BROKEN):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(shared_data / path, root / path)
    shutil.copy2(root / VIDEOS[0], root / "again.mov")
    paths = [*VIDEOS, *BROKEN, "again.mov", "videos/mmaction2_part_0.mp4"]
    rows = [f"{path},{'ab'[number % 2]},{'train' if number % 3 else 'val'}" for number, path in enumerate(paths)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows, "nowhere/x.mp4,c,train"]) + "\n")
    folder.mkdir()
    (folder / "dataset.yaml").write_text(DESCRIPTION)
    return folder, root


def plan(root: Path, output: Path, paths: list[str], **changes: object) -> ScanPlan:
    return ScanPlan(root=root, paths=sorted(paths), folder=ManifestFolder(output), **changes)


def scan(root: Path, output: Path, paths: list[str], **changes: object) -> Manifest:
    return scan_set(plan(root, output, paths, **changes), make_progress(is_main_process=False))


def test_the_report_and_the_manifest_of_a_mixed_set(mixed: tuple[Path, Path], run_main: Run) -> None:
    folder, root = mixed
    code, out, err = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 2, "--depth", "frames")
    assert code == 0, err
    report = json.loads((root / ".vidtl/report.json").read_text())
    assert (root / ".vidtl/report.txt").read_text() in out
    splits = report["splits"]
    assert sum(split["annotated"] for split in splits.values()) == 11
    assert sum(split["missing"] for split in splits.values()) == 2
    assert sum(split["unreadable"] for split in splits.values()) == 3
    assert {row["path"]: row["near"] for row in report["missing"]} == {
        "videos/mmaction2_part_0.mp4": "videos/mmaction2__part_0.mp4",
        "nowhere/x.mp4": "there is no folder 'nowhere'",
    }
    broken = {file["path"]: kind["kind"] for kind in report["broken"] for file in kind["files"]}
    assert broken == {
        "broken/zero_byte.mp4": "the file is empty",
        "broken/jpeg_named.mp4": "not a video container",
        "broken/ExoPlayer__sample_opus.mp4": "no video stream",
    }
    (group,) = report["duplicates"]["same_content"]
    assert group["paths"] == ["again.mov", "videos/decord__video_90.mov"]
    assert all(split["c"]["readable"] == 0 for split in report["classes"].values())
    for words in ("without any: 1: c", "annotated and expected differ", "near: videos/mmaction2__part_0.mp4"):
        assert words in out
    by_path = {entry.path: entry for entry in Manifest.load(default_file(root))}
    for path in VIDEOS:
        with open_video(root / path) as video:
            assert by_path[path].num_decoded == by_path[path].num_frames == len(video.times_s)


def test_shards_interruptions_and_workers_change_no_byte(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    _, root = mixed
    paths = [*VIDEOS, *BROKEN, "again.mov", "gone.mp4"]
    whole = scan(root, tmp_path / "one", paths).file.read_bytes()
    assert scan(root, tmp_path / "three", paths, num_workers=3).file.read_bytes() == whole

    folder = ManifestFolder(tmp_path / "shards")
    for number in (3, 1):
        scan(root, folder.path, paths, shard=Shard(number, 3))
    assert folder.missing_parts() == ([2], 3)
    with pytest.raises(UserError, match="1 of 3 parts are missing: 2;"):
        folder.merge(paths)
    scan(root, folder.path, paths, shard=Shard(2, 3))
    assert folder.merge(paths).file.read_bytes() == whole
    assert [file.name for file in folder.path.iterdir()] == ["manifest.npz"]

    scan(root, tmp_path / "joined", paths, shard=Shard(1, 3))
    assert scan(root, tmp_path / "joined", paths).file.read_bytes() == whole


def test_files_that_hang_or_crash_cost_themselves_alone(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    _, root = mixed
    for name in ("hangs.mov", "crashes.mov"):
        shutil.copy2(root / VIDEOS[0], root / name)
    paths = [*VIDEOS, "hangs.mov", "crashes.mov"]
    manifest = scan(root, tmp_path / "out", paths, num_workers=2, time_limit_s=6.0, scan=stubborn_scan)
    by_path = {entry.path: entry for entry in manifest}
    assert (by_path["hangs.mov"].status, by_path["hangs.mov"].reason) == ("hung", "no result within 6 s")
    assert (by_path["crashes.mov"].status, by_path["crashes.mov"].reason) == (
        "crashed",
        "the decoder crashed (SIGSEGV)",
    )
    assert {by_path[path].status for path in VIDEOS} == {"ok"}
    # A later run tries them again, and nothing else.
    again = scan(root, tmp_path / "out", paths)
    assert {entry.status for entry in again} == {"ok"}


def test_what_goes_wrong_after_opening_is_the_files_own_fault(
    mixed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = mixed

    def no_memory(source: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr("vidtl.prepare.scan._decode_all", no_memory)
    entry = scan_file(ScanJob(root, VIDEOS[0], "frames"))
    assert (entry.status, entry.reason) == ("unreadable", "MemoryError: too large")


def test_a_killed_scan_goes_on_and_ends_with_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    paths = [*read_records(load_description("toy"), "train", toy).paths]
    whole = scan(toy, tmp_path / "whole", paths).file.read_bytes()
    broken = tmp_path / "broken"
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.data import stubborn_scan\n"
        "from tests.tools import test_prepare as t\n"
        "if __name__ == '__main__':\n"
        "    root, output, *paths = sys.argv[1:]\n"
        "    t.scan(Path(root), Path(output), paths, scan=stubborn_scan.slow_scan)\n"
    )
    script = tmp_path / "scan.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tools'}"}
    command = [sys.executable, str(script), str(toy), str(broken), *paths]
    journal = broken / "unfinished.jsonl"
    for stop in (signal.SIGKILL, signal.SIGINT):
        done = len(journal.read_bytes().splitlines()) if journal.exists() else 0
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not journal.exists() or len(journal.read_bytes().splitlines()) < done + 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(stop)
        _, error = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "StoppedBySignalError: stopped by SIGINT at" in error or stop == signal.SIGKILL
        with journal.open("ab") as stream:
            stream.write(b'{"path": "torn')  # what a machine that loses power leaves
    scanned_before = {json.loads(line)["path"] for line in journal.read_bytes().splitlines()[:-1]}
    assert len(scanned_before) >= 6
    assert scan(toy, broken, paths, scan=stubborn_scan).file.read_bytes() == whole
    assert not journal.exists()


def test_copies_are_a_root_of_their_own(mixed: tuple[Path, Path], tmp_path: Path, run_main: Run) -> None:
    folder, root = mixed
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}
    output = tmp_path / "fast"
    options = ["--dataset", folder, "--root", root, "--output", tmp_path / "scan", "--workers", 2]
    options += ["--transcode", output, "--short_side", 160]
    code, out, err = run_main(prepare.main, *options)
    assert code == 0, err
    for words in ("copies ", "6 of 11 files", "times)", "clips per CPU second", f"--data.root {output}"):
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
        assert [*read_records(description, split, output).ids] == [*read_records(description, split, root).ids]
    copies = {entry.path: entry for entry in Manifest.load(default_file(output))}
    assert {path for path, entry in copies.items() if entry.is_readable} == {*VIDEOS, "again.mov"}
    assert copies["broken/zero_byte.mp4"].reason == "not copied: the file is empty"

    made = {path: (output / path).stat().st_ino for path in VIDEOS}
    content = default_file(output).read_bytes()
    assert run_main(prepare.main, *options)[0] == 0
    assert {path: (output / path).stat().st_ino for path in VIDEOS} == made  # nothing is done twice
    assert default_file(output).read_bytes() == content
    code, _, err = run_main(prepare.main, *options[:-1], 128)
    assert code == 2
    assert "holds copies made with short_side 160, not 128" in err.splitlines()[-1]  # after the warning on `expected`


def test_copies_of_class_folders_leave_out_what_cannot_be_copied(toy: Path, tmp_path: Path, run_main: Run) -> None:
    folder, root = tmp_path / "set", tmp_path / "root"
    videos = sorted((toy / "videos/val").iterdir())
    for number, video in enumerate(videos[:4]):
        for split in ("train", "val"):
            target = root / split / "ab"[number % 2] / video.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(video, target)
    (root / "train/a/broken.mp4").write_text("no video")
    (root / "train/a" / os.fsdecode(b"\xe9.txt")).write_text("no video either")
    folder.mkdir()
    (folder / "dataset.yaml").write_text(
        "format: class_folders\nlabels: single\nsplits: {train: {videos: train}, val: {videos: val}}\n"
    )
    output = tmp_path / "fast"
    code, out, err = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 1, "--transcode", output)
    assert code == 0, err
    assert "8 of 9 files" in out
    description = load_description(str(folder))
    copied, original = (read_records(description, "train", each) for each in (output, root))
    assert [*copied.ids] == [name for name in original.ids if not name.endswith("broken.mp4")]
    assert copied.classes == original.classes


def test_near_names_may_be_of_any_bytes(mixed: tuple[Path, Path], run_main: Run) -> None:
    folder, root = mixed
    (root / VIDEOS[1]).rename(root / "videos" / os.fsdecode(b"mmaction2__part_0\xe9.mp4"))
    code, out, err = run_main(prepare.main, "--dataset", folder, "--root", root, "--workers", 1)
    assert code == 0, err
    missing = json.loads((root / ".vidtl/report.json").read_text())["missing"]
    assert {row["near"] for row in missing} >= {"videos/" + os.fsdecode(b"mmaction2__part_0\xe9.mp4")}
    assert "mmaction2__part_0\\udce9.mp4" in out


def test_a_test_list_without_labels_is_left_out_unless_named(tmp_path: Path, run_main: Run) -> None:
    (tmp_path / "annotations").mkdir()
    header = "youtube_id,time_start,time_end,split"
    for split in ("train", "val"):
        (tmp_path / f"annotations/{split}.csv").write_text(f"label,{header}\nabseiling,{split},1,11,{split}\n")
    (tmp_path / "annotations/test.csv").write_text(f"{header}\na,17,27,test\n")
    options = ["--dataset", "kinetics600", "--root", tmp_path]
    code, out, err = run_main(prepare.main, *options)
    assert code == 0, err
    assert f"split test: {tmp_path / 'annotations/test.csv'} has no column of labels (--splits names" in out
    assert {*json.loads((tmp_path / ".vidtl/report.json").read_text())["splits"]} == {"train", "val"}
    code, _, err = run_main(prepare.main, *options, "--splits", "test")
    assert code == 2
    assert "test.csv:1: no column 'label'" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "3/2"], "--shard is '3/2'; allowed: i/n"),
        (["--shard", "a"], "--shard is 'a'; allowed: i/n"),
        (["--shard", "1/2", "--merge"], "--merge and --shard are given"),
        (["--merge"], "has no parts to join"),
        (["--workers", "0"], "--workers is 0; allowed: 1 or more"),
        (["--time_limit", "nan"], "--time_limit is nan; allowed: more than 0, at most 86400 seconds"),
        (["--time_limit", "inf"], "--time_limit is inf; allowed: more than 0, at most 86400 seconds"),
        (["--crf", "22"], "--short_side or --crf is given without --transcode"),
        (["--splits", "trian"], "has no split 'trian'; did you mean 'train'?"),
        (["--transcode", "x", "--short_side", "33"], "--short_side is 33; allowed: even numbers"),
        (["--transcode", "x", "--crf", "60"], "--crf is 60; allowed: 0"),
        (["--depth", "bytes"], "--depth: invalid choice: 'bytes'"),
        (["--output", "/proc/nowhere"], "--output names another folder"),
    ],
)
def test_mistakes_end_in_one_line(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: Run, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run_main(prepare.main, "--dataset", "toy", "--root", toy, *options)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not default_file(toy).exists()
