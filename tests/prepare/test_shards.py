"""Parts of a manifest that several jobs write, joined."""

import os
from pathlib import Path

import pytest

from vidtl.data.manifest_entry import Entry
from vidtl.errors import UserError
from vidtl.prepare.shards import ManifestFolder
from vidtl.runtime.shard import Shard

PATHS = ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def write(folder: ManifestFolder, shard: Shard, reason: str, written_s: int) -> None:
    entries = [Entry(path=path, status="unreadable", reason=reason, depth="packets") for path in shard.take(PATHS)]
    file = folder.write(entries, shard).file
    os.utime(file, (written_s, written_s))


@pytest.mark.parametrize(("earlier", "later"), [(2, 4), (4, 2), (9, 10), (10, 9)])
def test_the_latest_array_wins(tmp_path: Path, earlier: int, later: int) -> None:
    folder = ManifestFolder(tmp_path)
    for number in range(1, earlier + 1):
        write(folder, Shard(number, earlier), "earlier", number)
    for number in range(later, 0, -1):
        write(folder, Shard(number, later), "later", 100 - number)
    assert folder.missing_parts() == ([], later)
    assert {entry.reason for entry in folder.entries(None).values()} == {"later"}
    assert {entry.reason for entry in folder.merge(PATHS)} == {"later"}
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.npz"]


def test_parts_of_an_earlier_array_stand_in_for_none(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    for number in (1, 2):
        write(folder, Shard(number, 2), "earlier", number)
    write(folder, Shard(3, 4), "later", 3)
    with pytest.raises(UserError, match="3 of 4 parts are missing: 1, 2, 4; run --shard 1/4"):
        folder.merge(PATHS)


def test_a_manifest_that_has_all_files_needs_no_parts(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    with pytest.raises(UserError, match="has no parts to join"):
        folder.merge(PATHS)
    write(folder, Shard(1, 1), "whole", 1)
    content = folder.merge(PATHS).file.read_bytes()
    assert folder.merge(PATHS).file.read_bytes() == content
    with pytest.raises(UserError, match="has no parts to join"):
        folder.merge([*PATHS, "e.mp4"])
    write(folder, Shard(2, 2), "again", 2)
    assert [entry.reason for entry in folder.merge(PATHS)] == ["whole", "again", "whole", "again"]


def test_arrays_of_different_splits_are_joined_and_none_is_lost(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    for number, path in enumerate(PATHS[:2], start=1):
        folder.write([Entry(path=path, status="unreadable", reason="train", depth="packets")], Shard(number, 2))
    others = [Entry(path=path, status="unreadable", reason="val", depth="packets") for path in PATHS[2:]]
    folder.write(others, Shard(1, 1))
    assert [entry.path for entry in folder.merge(PATHS[2:])] == PATHS
