"""Known gaps: unreadable in the manifest, and gone or unchanged since."""

import dataclasses
import os
import shutil

import pytest

from tests.data.test_manifest import scanned_manifest
from tests.refusals import refused
from vidtl.data.gaps import Gap, find_gaps, without_gaps
from vidtl.data.manifest import Entry, default_file
from vidtl.prepare.manifest import ManifestFolder, Results


def test_gaps_are_what_the_manifest_has_and_no_change_repaired(copied):
    whole, missing, back, broken, repaired, deleted, touched, folder, *_ = (copied.path(index) for index in range(16))
    content = whole.read_bytes()
    for path in (missing, back):
        path.unlink()
    for path in (broken, repaired, deleted, touched):
        path.write_bytes(b"")
    folder.unlink()
    folder.mkdir()
    scanned_manifest(copied.root, [*copied.paths, "other.mp4"])
    for path in (back, repaired):
        path.write_bytes(content)
    deleted.unlink()
    os.utime(touched, (1, 1))
    whole.unlink()  # not known: an unreadable file of any run
    gaps = find_gaps(copied, "auto")
    reasons = ("No such file or directory", "the file is empty", "the file is empty")
    assert gaps == [
        Gap(copied.ids[index], copied.paths[index], why) for index, why in zip((1, 3, 5), reasons, strict=True)
    ]
    assert find_gaps(copied, "none") == []
    kept = without_gaps(copied, gaps)
    assert [*kept.ids] == [video_id for index, video_id in enumerate(copied.ids) if index not in (1, 3, 5)]
    assert without_gaps(copied, []) is copied


@pytest.mark.parametrize("status", ["hung", "crashed"])
def test_segments_of_a_file_are_left_out_together(copied, status):
    segments = dataclasses.replace(copied, paths=copied.select([0, 0, *range(2, len(copied))]).paths)
    stamp = os.stat(copied.path(0))
    found = {"path": copied.paths[0], "size": stamp.st_size, "mtime_ns": stamp.st_mtime_ns}
    with Results(ManifestFolder(default_file(copied.root).parent), None) as results:
        results.add(Entry(status=status, reason="lost", depth="packets", **found))
        results.finish()
    assert [gap.id for gap in find_gaps(segments, "auto")] == [copied.ids[0], copied.ids[1]]


def test_a_set_of_gaps_is_refused(copied):
    shutil.rmtree(copied.root / "videos")
    scanned_manifest(copied.root, copied.paths)
    with refused("data.root", copied.root, "none of 16", copied.paths[0], "No such file"):
        without_gaps(copied, find_gaps(copied, "auto"))
