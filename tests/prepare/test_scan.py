"""Scans of a data set: the same manifest whatever interrupts them, also joined from parts of several jobs."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from multiprocessing import forkserver
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from pebble.pool import process

from tests.environment import REPOSITORY
from tests.prepare import stubborn
from tests.refusals import refused
from tests.video.test_images import write
from vidtl.data.manifest import Entry, Manifest, file_stamp
from vidtl.prepare.manifest import ManifestFolder, Results
from vidtl.prepare.scan import ScanJob, ScanPlan, scan_file, scan_set
from vidtl.prepare.work import usable_cores
from vidtl.runtime.progress import Progress
from vidtl.runtime.shard import Shard
from vidtl.runtime.signals import StoppedBySignalError

# Indexed, counted, and two ways to be broken.
VIDEOS = ("videos/mmaction2__part_0.mp4", "videos/ExoPlayer__bear-vp9.webm")
BROKEN = ("broken/zero_byte.mp4", "broken/jpeg_named.mp4")


@pytest.fixture
def root(shared_data: Path, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for path in (*VIDEOS, *BROKEN):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(shared_data / path, root / path)
    return root


def scan(root: Path, output: Path, paths: list[str], **changes: object) -> Manifest:
    plan = ScanPlan(root=root, paths=sorted(paths), folder=ManifestFolder(output), **changes)
    return scan_set(plan, Progress(visible=False))


def test_shards_and_workers_change_no_byte(root: Path, tmp_path: Path) -> None:
    paths = [*VIDEOS, *BROKEN, "gone.mp4"]
    whole = scan(root, tmp_path / "one", paths).file.read_bytes()
    assert scan(root, tmp_path / "three", paths, num_workers=3).file.read_bytes() == whole

    folder = ManifestFolder(tmp_path / "shards")
    for number in (2, 1):
        scan(root, folder.path, paths, shard=Shard(number, 2))
    assert folder.merge(paths).file.read_bytes() == whole
    assert os.listdir(folder.path) == ["manifest.sqlite"]

    scan(root, tmp_path / "joined", paths, shard=Shard(1, 3))
    assert scan(root, tmp_path / "joined", paths).file.read_bytes() == whole


def test_only_new_changed_and_less_deeply_scanned_files_are_scanned(root: Path, tmp_path: Path) -> None:
    scan(root, tmp_path, [VIDEOS[0]])
    shutil.copy2(root / VIDEOS[0], root / "crashes.mp4")
    before = {entry.path: entry for entry in scan(root, tmp_path, [VIDEOS[0], "crashes.mp4"])}
    assert [*scan(root, tmp_path, ["crashes.mp4"], scan=stubborn.stubborn_scan)] == [*before.values()]
    os.utime(root / "crashes.mp4")
    changed = {entry.path: entry for entry in scan(root, tmp_path, ["crashes.mp4"], scan=stubborn.stubborn_scan)}
    assert (changed["crashes.mp4"].status, changed[VIDEOS[0]]) == ("crashed", before[VIDEOS[0]])
    for entry in scan(root, tmp_path, [*before], depth="frames"):
        assert (entry.status, entry.depth, entry.num_decoded) == ("ok", "frames", entry.num_frames)


def test_a_new_run_tries_broken_files_again_and_a_continued_one_does_not(root: Path, tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    stamp = dict(zip(("size", "mtime_ns"), file_stamp(root / VIDEOS[0]), strict=True))
    entry = Entry(path=VIDEOS[0], status="unreadable", reason="an earlier version's", depth="packets", **stamp)
    with Results(folder, None) as results:
        results.add(entry)
        results.commit()
    assert [*scan(root, tmp_path, [VIDEOS[0]])] == [entry]
    assert [entry.status for entry in scan(root, tmp_path, [VIDEOS[0]])] == ["ok"]


def test_files_that_hang_or_crash_cost_only_themselves(root: Path, tmp_path: Path) -> None:
    stubborn_files = {"hangs.mp4": "hung", "crashes.mp4": "crashed"}
    stubborn_files |= dict.fromkeys(("hangs-once.mp4", "crashes-once.mp4", "long.mp4"), "ok")
    for name in stubborn_files:
        shutil.copy2(root / VIDEOS[0], root / name)
    paths = [*VIDEOS, *stubborn_files]
    manifest = scan(root, tmp_path, paths, num_workers=2, time_limit_s=0.7, scan=stubborn.stubborn_scan)
    statuses = {entry.path: entry.status for entry in manifest}
    assert statuses == stubborn_files | dict.fromkeys(VIDEOS, "ok")
    limit_of_file_s = 0.7 + (root / "hangs.mp4").stat().st_size / 1e6
    assert f"no new frame in {limit_of_file_s:g} s of CPU time" in manifest.find("hangs.mp4").reason
    assert "SIGSEGV" in manifest.find("crashes.mp4").reason
    assert {entry.status for entry in scan(root, tmp_path, paths)} == {"ok"}  # a new run tries them again


def test_a_process_that_dies_before_the_pool_knows_its_job(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Alone, it breaks pebble's pool; beside others, its job never ends."""
    find, deaths = process.PoolManager.find_expired_task, []

    def forget_twice(manager: process.PoolManager, worker: int) -> object:
        deaths.append(worker)
        if len(deaths) <= 2:
            raise (BrokenProcessPool if len(deaths) == 1 else LookupError)
        return find(manager, worker)

    monkeypatch.setattr(process.PoolManager, "find_expired_task", forget_twice)
    monkeypatch.setattr("vidtl.prepare.work._LATE_S", 0.0)
    shutil.copy2(root / VIDEOS[0], root / "crashes.mp4")
    manifest = scan(root, tmp_path, [*VIDEOS, "crashes.mp4"], time_limit_s=0.2, scan=stubborn.stubborn_scan)
    assert {entry.path: entry.status for entry in manifest} == {**dict.fromkeys(VIDEOS, "ok"), "crashes.mp4": "crashed"}
    assert len(deaths) == 3


def test_a_long_file_shows_that_it_advances(root: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    shutil.copy2(root / VIDEOS[0], root / "long.mp4")
    monkeypatch.setattr("vidtl.runtime.progress.LINE_EVERY_S", 0.0)
    plan = ScanPlan(root=root, paths=["long.mp4"], folder=ManifestFolder(tmp_path), scan=stubborn.stubborn_scan)
    scan_set(plan, Progress())
    lines = capsys.readouterr().err.splitlines()
    counts = {int(line.split("decoded ")[1].split()[0]) for line in lines if " 0/1 files" in line}
    assert len(counts) >= 3
    assert "1/1 files" in lines[-1]
    assert "decoded 15 frames" in lines[-1]


@pytest.mark.parametrize(("kind", "count"), [("hangs", 4), ("sleeps", 2)])
def test_a_slow_machine_makes_no_file_hung(root: Path, tmp_path: Path, kind: str, count: int) -> None:
    """The first files of a set all exceed their limit: as many as two workers take, or all that there are."""
    paths = ["gone.mp4", *(f"{kind}-{number}.mp4" for number in range(count))]
    for path in paths[1:]:
        (root / path).write_bytes(b"")
    with refused(f"first {count} files", "0.1 s", "2 --workers", "--time_limit"):
        scan(root, tmp_path / "out", paths, num_workers=2, time_limit_s=0.1, scan=stubborn.stubborn_scan)
    assert committed(tmp_path / "out") <= 1  # the missing one
    assert not ManifestFolder(tmp_path / "out").manifest.exists()


def test_processes_import_the_scan_alone(root: Path, tmp_path: Path) -> None:
    forkserver._forkserver._stop()  # it has the imports of earlier tests
    (entry,) = scan(root, tmp_path, [VIDEOS[0]], scan=stubborn.list_modules)
    assert {*entry.reason.split()} == {"vidtl.prepare.scan", "av"}


def version_1(folder: str, quota: str) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/job/step", {"job/cpu.max": "max 100000", "cpu.max": "100000 100000"}, 1),
        ("4:cpu,cpuacct:/job", version_1("cpu,cpuacct", "100000"), 1),
        ("1:cpu:/job", version_1("cpu/job", "-1"), 0),
        ("0::/", {"cpu.max": "99900000 100000"}, 0),
        ("", {}, 0),
    ],
)
def test_workers_follow_affinity_and_quota(tmp_path: Path, groups: str, files: dict[str, str], cores: int) -> None:
    (tmp_path / "own").write_text(groups + "\n" if groups else "")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert usable_cores(f"{tmp_path}", f"{tmp_path}/own") == (cores or len(os.sched_getaffinity(0)))
    assert usable_cores(f"{tmp_path}", f"{tmp_path}/nowhere") == len(os.sched_getaffinity(0))


def test_errors_after_opening_belong_to_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtl.prepare.scan._decode_all", Mock(side_effect=MemoryError("too large")))
    entry = scan_file(ScanJob(root, VIDEOS[0], "frames"))
    assert (entry.status, entry.reason) == ("unreadable", "MemoryError: too large")


@pytest.fixture
def many(root: Path) -> list[str]:
    """Enough for `slow_scan` to be stopped in between; it hangs on the last ones."""
    paths = [f"{number:02d}.mp4" for number in range(20)] + ["98-hangs.mp4", "99-hangs.mp4"]
    for path in paths:
        os.link(root / VIDEOS[0], root / path)
    return paths


def committed(output: Path) -> int:
    uri = f"{ManifestFolder(output).unfinished(None).as_uri()}?mode=ro&immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM files").fetchone()[0])
    return 0


def wait_until_committed(output: Path) -> None:
    deadline_s = time.monotonic() + 120
    while committed(output) < 5 and time.monotonic() < deadline_s:
        time.sleep(0.02)


def check_continued(root: Path, output: Path, paths: list[str]) -> None:
    assert committed(output) >= 5
    manifest = scan(root, output, paths)
    assert [(entry.path, entry.status) for entry in manifest] == [(path, "ok") for path in paths]
    assert os.listdir(output) == ["manifest.sqlite"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_scan_at_once(root: Path, tmp_path: Path, many: list[str], stop: int) -> None:
    output = tmp_path / "out"
    Thread(target=lambda: (wait_until_committed(output), os.kill(os.getpid(), stop))).start()
    with pytest.raises(StoppedBySignalError, match=signal.Signals(stop).name):
        scan(root, output, many, num_workers=2, scan=stubborn.slow_scan)
    assert not [child for child in multiprocessing.active_children() if "pebble" in child.name]
    check_continued(root, output, many)


def test_a_killed_scan_leaves_no_process_and_continues(root: Path, tmp_path: Path, many: list[str]) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "tests.prepare.stubborn", str(root), str(output), *many]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    wait_until_committed(output)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    check_continued(root, output, many)


def test_a_thorough_scan_decodes_every_image(tmp_path: Path) -> None:
    for name in ("whole", "damaged", "broken"):
        write(tmp_path / name, "{}.jpg", count=4)
    truncated = (tmp_path / "whole/1.jpg").read_bytes()[:-40]  # its header is whole
    (tmp_path / "damaged/2.jpg").write_bytes(b"")
    (tmp_path / "damaged/3.jpg").write_bytes(truncated)
    for file in (tmp_path / "broken").iterdir():
        file.write_bytes(truncated)
    folders = ("whole", "damaged", "broken", "whole/1.jpg")
    quick = [scan_file(ScanJob(tmp_path, name, "packets", frame_rate=10.0)) for name in folders]
    thorough = [scan_file(ScanJob(tmp_path, name, "frames", frame_rate=10.0)) for name in folders]
    assert {(entry.status, entry.num_decoded) for entry in quick} == {("ok", -1)}
    found = [("ok", 4, 4), ("damaged", 4, 2), ("unreadable", 4, 0), ("ok", 1, 1)]
    assert [(entry.status, entry.num_frames, entry.num_decoded) for entry in thorough] == found
    assert thorough[1].reason.startswith("2 of 4 frames do not decode, the first is 1: not an image")


PATHS = ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


@pytest.fixture
def folder(tmp_path: Path) -> ManifestFolder:
    return ManifestFolder(tmp_path)


def write_part(folder: ManifestFolder, shard: Shard, reason: str, written_s=0, paths: list[str] = PATHS) -> None:
    with Results(folder, shard) as results:
        for path in shard.take(paths):
            results.add(Entry(path=path, status="unreadable", reason=reason, depth="packets"))
        file = results.finish().file
    os.utime(file, (written_s, written_s))


@pytest.mark.parametrize(("earlier", "later"), [(2, 4), (4, 2), (9, 10), (10, 9)])
def test_the_latest_array_wins(folder: ManifestFolder, earlier: int, later: int) -> None:
    for number in range(1, earlier + 1):
        write_part(folder, Shard(number, earlier), "earlier", number)
    for number in range(later, 0, -1):
        write_part(folder, Shard(number, later), "later", 100 - number)
    assert folder.missing_parts() == ([], later)
    assert {entry.reason for entry in folder.merge(PATHS)} == {"later"}
    assert os.listdir(folder.path) == ["manifest.sqlite"]


def test_parts_of_an_earlier_array_do_not_stand_in_for_missing_ones(folder: ManifestFolder) -> None:
    for number, shard in enumerate((Shard(1, 2), Shard(2, 2), Shard(3, 4))):
        write_part(folder, shard, "any", number)
    with refused(folder.path, "1, 2, 4", "--shard 1/4"):
        folder.merge(PATHS)


def test_a_manifest_that_has_all_files_needs_no_parts(folder: ManifestFolder) -> None:
    write_part(folder, Shard(1, 1), "whole")
    content = folder.merge(PATHS).file.read_bytes()
    assert folder.merge(PATHS).file.read_bytes() == content
    with refused(folder.path, "no parts"):
        folder.merge([*PATHS, "e.mp4"])
    write_part(folder, Shard(2, 2), "again")
    assert [entry.reason for entry in folder.merge(PATHS)] == ["whole", "again", "whole", "again"]


def test_arrays_of_different_splits_are_joined_and_none_is_lost(folder: ManifestFolder) -> None:
    for number in (1, 2):
        write_part(folder, Shard(number, 2), "train", paths=PATHS[:2])
    write_part(folder, Shard(1, 1), "val", paths=PATHS[2:])
    assert [entry.path for entry in folder.merge(PATHS[2:])] == PATHS


def test_damaged_and_locked_files_are_named(folder: ManifestFolder) -> None:
    write_part(folder, Shard(1, 2), "whole")
    part = folder.written(Shard(1, 2))
    part.write_bytes(part.read_bytes()[:5000])
    with refused(part):
        folder.merge()
    folder.unfinished(None).write_bytes(b"no database")
    part.unlink()
    with refused(folder.unfinished(None)):
        Results(folder, None)
    folder.unfinished(None).unlink()
    with Results(folder, None), refused(folder.unfinished(None), "in use"):
        Results(folder, None)


def test_planted_journals_delete_no_file_and_pipes_block_nothing(folder: ManifestFolder, tmp_path: Path) -> None:
    """SQLite deletes the file that a journal names as that of a transaction on several databases."""
    victim = tmp_path / "victim"
    victim.touch()
    with Results(folder, None) as results:
        results.commit()
    file = folder.unfinished(None)
    content, magic, name = file.read_bytes(), bytes.fromhex("d9d505f920a163d7"), os.fsencode(victim)
    size = int.from_bytes(content[16:18])
    checksum = sum(content[size - 200 : 0 : -200]) % (1 << 32)
    journal = (magic + struct.pack(">5I", 1, 0, len(content) // size, 512, size)).ljust(512, b"\0")
    journal += struct.pack(">I", 1) + content[:size] + struct.pack(">I", checksum)
    journal += struct.pack(">I", (1 << 30) // size + 1) + name + struct.pack(">2I", len(name), sum(name)) + magic
    planted = file.with_name(f"{file.name}-journal")
    planted.write_bytes(journal)
    with refused(planted, "names another file"):
        Results(folder, None)
    assert victim.exists()
    for pipe in (planted, file):
        pipe.unlink()
        os.mkfifo(pipe)
        with refused(pipe, "no regular file"):
            Results(folder, None)
