"""The manifest: exact, small, refused when damaged, without influence on clips."""

import dataclasses
import logging
import math
import multiprocessing
import os
import pickle
import shutil
import sqlite3
import zlib
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tests.data.conftest import CONFIG, clips_of, config_with, view_of
from tests.refusals import assert_refusal, refused
from tests.video.conftest import read, unreadable
from vidtl.data.dataset import ClipKey
from vidtl.data.manifest import FOLDER, SCHEMA, Manifest, find_manifest
from vidtl.errors import UserError
from vidtl.prepare.manifest import ManifestFolder, Results
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.video import open_video
from vidtl.video.timeline import pack_timeline, scan_packets, unpack_timeline

WITHOUT = config_with("data", manifest="none")


def scanned_manifest(root, paths, folder=None):
    with Results(ManifestFolder(folder or root / FOLDER), None) as results:
        for path in paths:
            results.add(scan_file(ScanJob(root, path, "packets")))
        return results.finish()


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    paths = [f"{folder}/{name}" for folder in ("videos", "broken") for name in os.listdir(shared_data / folder)]
    return scanned_manifest(shared_data, paths, tmp_path_factory.mktemp("manifest"))


def test_timelines_of_real_files_are_restored_in_every_bit(shared_data, real):
    kinds = set()
    for entry in real:
        if not entry.is_readable:
            continue
        scanned = entry.scanned()
        with open_video(shared_data / entry.path) as video:
            known, timeline = scanned.timeline, video.source.timeline
            assert scanned == dataclasses.replace(video.source.scanned(), timeline=known, rate=scanned.rate)
        assert np.array_equal(known.times_s, timeline.times_s)
        assert known.fps == timeline.fps
        kind = known.pts is None, known.index is None
        assert kind == (timeline.pts is None, timeline.index is None)
        kinds.add(kind)
        if timeline.index is not None:
            for name in ("pts", "order", "key_pts", "key_order"):
                assert np.array_equal(getattr(known.index, name), getattr(timeline.index, name)), (entry.path, name)
    assert kinds == {(False, False), (False, True), (True, True)}  # indexed, counted with times, only counted


def test_packets_whose_timeline_would_look_damaged_are_not_trusted():
    """An edit list can hide all but a few of many key frames."""
    packets = [Mock(pts=n, size=1, is_corrupt=False, is_discard=n > 1, is_keyframe=True) for n in range(3)]
    assert scan_packets(packets, "mov", "h264", Fraction(1, 25), None) is None
    timeline = scan_packets(packets[:2], "mov", "h264", Fraction(1, 25), None)
    restored = unpack_timeline(pack_timeline(timeline), 2, Fraction(1, 25), None)
    assert restored.index.key_pts.tolist() == timeline.index.key_pts.tolist() == [0, 1]


def test_known_broken_videos_are_not_opened(copied, monkeypatch):
    for index in set(range(len(copied))) - {5}:
        copied.path(index).write_bytes(b"no video")
    scanned_manifest(copied.root, copied.paths)
    failure = view_of(copied, 0, WITHOUT).failure
    assert failure.reason.startswith("not a video")
    with monkeypatch.context() as patch:
        patch.setattr("vidtl.data.dataset.open_video", lambda path, *rest: pytest.fail(f"{path} is opened"))
        assert view_of(copied, 0).failure == failure
    monkeypatch.setattr("vidtl.data.dataset.MAX_SUBSTITUTIONS", 100)
    clips = [clips_of(copied, config)[ClipKey(0, 0, 1.0)][0] for config in (CONFIG, WITHOUT)]
    assert np.array_equal(clips[0].pixels, clips[1].pixels)
    assert clips[0].failures == clips[1].failures


def test_changed_files_are_reported_once_and_scanned_again(copied, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("vidtl"), "propagate", True)  # tools turn it off, and pytest adds a handler
    monkeypatch.setattr(logging.getLogger("vidtl"), "handlers", [])
    manifest = scanned_manifest(copied.root, copied.paths)
    for path in copied.paths:
        os.utime(copied.root / path, ns=(1, 1))
    (copied.root / copied.paths[0]).write_bytes(copied.path(1).read_bytes())
    for path in [*copied.paths, *copied.paths]:
        assert manifest.consult(copied.root, path) is None
    (message,) = caplog.messages
    assert message.startswith(copied.paths[0])
    assert str(manifest.file) in message
    assert view_of(copied, 0).failure is None


def test_a_decode_that_disagrees_with_the_manifest_is_unreadable(shared_data, tmp_path):
    """The content changes while size and time stay."""
    for name in ("mmaction2__part_0.mp4", "PaddleVideo__example.avi"):
        shutil.copy(shared_data / "videos" / name, tmp_path / name)
        scanned = scan_file(ScanJob(tmp_path, name, "packets")).scanned()
        timeline = scanned.timeline
        pts = timeline.pts + (np.arange(len(timeline.pts)) >= 5)
        index = timeline.index and dataclasses.replace(timeline.index, pts=pts)
        shifted = dataclasses.replace(scanned, timeline=dataclasses.replace(timeline, pts=pts, index=index))
        with unreadable("frame 5"):
            read(tmp_path / name, range(8), (16, 16), scanned=shifted)
        with unreadable("header"):
            open_video(tmp_path / name, scanned=dataclasses.replace(scanned, coded_size=(16, 16)))


def test_any_damage_is_refused_or_harmless(real, tmp_path):
    content, rng = real.file.read_bytes(), np.random.default_rng(0)
    damaged = [content[:length] for length in rng.integers(0, len(content), 20)]
    for place in rng.integers(0, len(content), 150):
        damaged.append(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
    num_refused = 0
    for number, data in enumerate(damaged):
        file = tmp_path / f"damaged{number}.sqlite"
        file.write_bytes(data)
        for entry in real:
            try:
                # Without an entry, the video is scanned when it is opened.
                assert Manifest(file).find(entry.path) in (entry, None)
            except UserError as error:
                assert_refusal(str(error), file, "tools/prepare.py")
                num_refused += 1
    assert num_refused > 100


def rewrite(file, *statements, values=()):
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement, values)


HOSTILE_TIMELINES = [bytes(100 << 20), b"\x08" + b"\x7f" * 8 + b"\x01\x00" * 3, b"\xff" * 100]
HOSTILE_ROWS: list[dict[str, Any]] = [
    *({"size": "many"}, {"status": "rm -rf"}, {"reason": None}, {"reason": "x" * 2001, "status": "unreadable"}),
    *({"num_frames": 1 << 60}, {"num_frames": -1}, {"duration_s": math.inf}, {"timeline": b"no zlib"}),
    *({"num_frames": count, "timeline": b""} for count in (0, (1 << 22) + 1)),
    *({"rate": rate, "timeline": b""} for rate in ("1/" + "9" * 400, "-25")),
    *({"time_base": unit} for unit in ("\u0663", "1/0", "x")),
    *({"timeline": zlib.compress(content)} for content in HOSTILE_TIMELINES),
]


def test_hostile_rows_are_refused(copied):
    path = copied.paths[0]
    manifest = scanned_manifest(copied.root, [path])
    (good,) = manifest
    for change in HOSTILE_ROWS:
        entry = dataclasses.replace(good, **change)
        rewrite(manifest.file, f"INSERT OR REPLACE INTO files VALUES ({','.join('?' * 22)})", values=entry.to_row())
        with refused(manifest.file, "tools/prepare.py"):
            Manifest(manifest.file).consult(copied.root, path)


MANY_TABLES = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50000) "
    "INSERT INTO sqlite_master SELECT 'table', 't' || n, 't' || n, 2, 'CREATE TABLE t' || n || '(a)' FROM c"
)
ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n FROM c) SELECT n AS path FROM c"


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"PK\x03\x04 an archive"),
        lambda file: rewrite(file, "PRAGMA application_id = 1"),
        lambda file: rewrite(file, "PRAGMA user_version = 1"),
        lambda file: rewrite(file, "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM files; END"),
        lambda file: rewrite(file, "DROP TABLE files", "CREATE VIEW files AS SELECT randomblob(1 << 30) AS path"),
        lambda file: rewrite(file, "DROP TABLE files", SCHEMA.replace("timeline BLOB", "timeline")),
        lambda file: rewrite(
            file, "DROP TABLE files", *(f"CREATE VIEW {name} AS {ENDLESS}" for name in ("files", "x"))
        ),
        lambda file: rewrite(file, "PRAGMA writable_schema = ON", MANY_TABLES),
        lambda file: os.truncate(file, (4 << 30) + 1),
        lambda file: (file.unlink(), os.mkfifo(file)),
        lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
    ],
)
def test_other_files_are_refused(tmp_path, change):
    file = scanned_manifest(tmp_path, [], tmp_path).file
    assert len(Manifest(file)) == 0
    change(file)
    with refused(file, "tools/prepare.py"):
        find_manifest(tmp_path, str(file))


def test_a_manifest_is_found_by_setting(copied, tmp_path):
    assert find_manifest(copied.root, "auto") is None
    made = scanned_manifest(copied.root, copied.paths, tmp_path / "else where?")
    for setting in (made.file, made.file.parent):
        assert [*find_manifest(copied.root, str(setting))] == [*made]
    assert os.listdir(made.file.parent) == [made.file.name]  # nothing is written beside it
    assert find_manifest(copied.root, "none") is None
    for missing in (tmp_path / "nowhere", tmp_path):
        with refused("data.manifest", missing):
            find_manifest(copied.root, str(missing))


def test_version_2_loads():
    broken, gone, video = Manifest(Path(__file__).with_name("manifest_of_version_2.sqlite"))
    assert (broken.status, gone.status, video.status) == ("unreadable", "missing", "ok")
    scanned = video.scanned()
    assert (scanned.codec, len(scanned.timeline.times_s), video.num_decoded) == ("h264", 32, 32)


def test_each_process_opens_its_own_connection(real):
    entries = [*real]
    assert len(pickle.dumps(real)) < 1000
    assert [*pickle.loads(pickle.dumps(real))] == entries
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(real.find, [entry.path for entry in entries]) == entries
    assert real.find("nowhere.mp4") is real.find("") is None
    assert [*real] == entries


def test_a_table_whose_pages_repeat_without_end_is_refused(copied, tmp_path):
    """Each page of 18 levels refers many times to the next one: SQLite itself would read 10 ** 30 rows."""
    file = scanned_manifest(copied.root, copied.paths, tmp_path).file
    (good,) = [entry for entry in Manifest(file) if entry.path == copied.paths[0]]
    with closing(sqlite3.connect(file)) as database, database:
        rows = [dataclasses.replace(good, path=f"{number:06d}").to_row() for number in range(1000)]
        database.executemany(f"INSERT INTO files VALUES ({','.join('?' * 22)})", rows)
        ((root, size),) = database.execute("SELECT rootpage, page_size FROM sqlite_master, pragma_page_size")
    content = file.read_bytes()
    page, count = content[(root - 1) * size : root * size], len(content) // size
    places = [8, *(int.from_bytes(page[at : at + 2]) for at in range(12, 12 + 2 * int.from_bytes(page[3:5]), 2))]

    def referring_to(child):
        changed = bytearray(page)
        for place in places:
            changed[place : place + 4] = child
        return bytes(changed)

    levels = [referring_to(int(count + level).to_bytes(4)) for level in range(1, 18)] + [referring_to(page[8:12])]
    content = content[: (root - 1) * size] + levels[0] + content[root * size :] + b"".join(levels[1:])
    file.write_bytes(content[:28] + (len(content) // size).to_bytes(4) + content[32:])
    for use in (len, list, lambda manifest: Results(ManifestFolder(tmp_path), None).finish()):
        with refused(file, "interrupted"):
            use(Manifest(file))


def test_a_link_to_a_manifest_outside_the_root_is_not_opened(copied, tmp_path):
    file = scanned_manifest(copied.root, copied.paths).file
    file.rename(tmp_path / "other.sqlite")
    file.symlink_to(tmp_path / "other.sqlite")
    with refused(file, "outside"):
        find_manifest(copied.root, "auto")
