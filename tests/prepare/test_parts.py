"""Parts of a manifest that several jobs write, joined."""

import os
from pathlib import Path

import pytest

from tests.refusals import refused
from vidtl.data.manifest import Entry
from vidtl.prepare.manifest import ManifestFolder, Results
from vidtl.runtime.shard import Shard

PATHS = ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


@pytest.fixture
def folder(tmp_path: Path) -> ManifestFolder:
    return ManifestFolder(tmp_path)


def write(folder: ManifestFolder, shard: Shard, reason: str, written_s: int = 0, paths: list[str] = PATHS) -> None:
    with Results(folder, shard) as results:
        for path in shard.take(paths):
            results.add(Entry(path=path, status="unreadable", reason=reason, depth="packets"))
        file = results.finish().file
    os.utime(file, (written_s, written_s))


@pytest.mark.parametrize(("earlier", "later"), [(2, 4), (4, 2), (9, 10), (10, 9)])
def test_the_latest_array_wins(folder: ManifestFolder, earlier: int, later: int) -> None:
    for number in range(1, earlier + 1):
        write(folder, Shard(number, earlier), "earlier", number)
    for number in range(later, 0, -1):
        write(folder, Shard(number, later), "later", 100 - number)
    assert folder.missing_parts() == ([], later)
    assert {entry.reason for entry in folder.merge(PATHS)} == {"later"}
    assert os.listdir(folder.path) == ["manifest.sqlite"]


def test_parts_of_an_earlier_array_do_not_stand_in_for_missing_ones(folder: ManifestFolder) -> None:
    for number in (1, 2):
        write(folder, Shard(number, 2), "earlier", number)
    write(folder, Shard(3, 4), "later", 3)
    with refused(folder.path, "1, 2, 4", "--shard 1/4"):
        folder.merge(PATHS)


def test_a_manifest_that_has_all_files_needs_no_parts(folder: ManifestFolder) -> None:
    with refused(folder.path, "no parts"):
        folder.merge(PATHS)
    write(folder, Shard(1, 1), "whole")
    content = folder.merge(PATHS).file.read_bytes()
    assert folder.merge(PATHS).file.read_bytes() == content
    with refused(folder.path, "no parts"):
        folder.merge([*PATHS, "e.mp4"])
    write(folder, Shard(2, 2), "again")
    assert [entry.reason for entry in folder.merge(PATHS)] == ["whole", "again", "whole", "again"]


def test_arrays_of_different_splits_are_joined_and_none_is_lost(folder: ManifestFolder) -> None:
    for number in (1, 2):
        write(folder, Shard(number, 2), "train", paths=PATHS[:2])
    write(folder, Shard(1, 1), "val", paths=PATHS[2:])
    assert [entry.path for entry in folder.merge(PATHS[2:])] == PATHS


def test_damaged_and_locked_files_are_named(folder: ManifestFolder) -> None:
    write(folder, Shard(1, 2), "whole")
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
