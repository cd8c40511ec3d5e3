"""The manifest: exact, small, refused when damaged, and without any influence on clips."""

import dataclasses
import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import clips_of, views_of
from vidtl.config import AugmentationConfig, ClipConfig, DataConfig, ExperimentConfig
from vidtl.data.dataset import ClipKey
from vidtl.data.description import load_description, read_records
from vidtl.data.manifest import Manifest, default_file, file_stamp, find_manifest
from vidtl.data.manifest_entry import Entry
from vidtl.data.records import Records
from vidtl.data.toy import ToySettings, make_toy
from vidtl.errors import UserError
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.runtime.progress import make_progress
from vidtl.video import Box, UnreadableVideo, View, open_video
from vidtl.video.scanned import pack_timeline, unpack_timeline

CONFIG = ExperimentConfig(
    data=DataConfig(num_workers=0),
    clip=ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=36),
    augmentation=AugmentationConfig(flip_probability=0.5),
)
WITHOUT = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, manifest="none"))


def scanned_manifest(root: Path, paths: list[str], file: Path) -> Manifest:
    manifest = Manifest.from_entries([scan_file(ScanJob(root, path, "packets")) for path in paths], file)
    manifest.save()
    return Manifest.load(file)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    root = tmp_path / "toy"
    settings = ToySettings(seed=1, videos_per_class_train=1, videos_per_class_val=1)
    make_toy(root, settings, make_progress(is_main_process=False), num_processes=1)
    return read_records(load_description("toy"), "train", root)


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The manifest of all real and broken files."""
    paths = [
        str(path.relative_to(shared_data)) for name in ("videos", "broken") for path in (shared_data / name).iterdir()
    ]
    return scanned_manifest(shared_data, paths, tmp_path_factory.mktemp("manifest") / "manifest.npz")


def test_timelines_of_real_files_come_back_in_every_bit(shared_data: Path, real: Manifest) -> None:
    kinds = set()
    for entry in real:
        if not entry.is_readable:
            continue
        with open_video(shared_data / entry.path) as video:
            timeline = video.source.timeline
            scanned = entry.scanned()
            assert scanned == dataclasses.replace(video.source.scanned(), timeline=scanned.timeline, rate=scanned.rate)
            known = scanned.timeline
        assert np.array_equal(known.times_s, timeline.times_s)
        assert known.fps == timeline.fps
        assert (known.pts is None, known.index is None) == (timeline.pts is None, timeline.index is None)
        kinds.add((known.pts is None, known.index is None))
        if timeline.index is not None:
            for name in ("pts", "order", "key_pts", "key_order"):
                assert np.array_equal(getattr(known.index, name), getattr(timeline.index, name)), (entry.path, name)
    assert kinds == {(False, False), (False, True), (True, True)}  # indexed, counted with times, only counted


def test_frames_of_real_files_are_the_same_with_and_without(shared_data: Path, real: Manifest) -> None:
    for entry in real:
        if entry.status != "ok":
            continue
        pixels = []
        for scanned in (None, real.consult(shared_data, entry.path)):
            with open_video(shared_data / entry.path, scanned=scanned) as video:
                last = len(video.times_s) - 1
                view = View(np.array([0, last // 2, last]), Box(0, 0, video.height, video.width))
                try:
                    pixels.append(video.read([view], (32, 32), "planar").tobytes())
                except UnreadableVideo as error:
                    pixels.append(error.reason.encode())
        assert pixels[0] == pixels[1], entry.path


def test_broken_real_files_keep_their_reason(shared_data: Path, real: Manifest) -> None:
    num_refused = 0
    for entry in real:
        if entry.is_readable:
            continue
        reasons = []
        for opener in (lambda path: open_video(shared_data / path), lambda path: real.consult(shared_data, path)):
            with pytest.raises(UnreadableVideo) as caught:
                opener(entry.path)
            reasons.append(str(caught.value))
        assert reasons[0] == reasons[1]
        num_refused += 1
    assert num_refused == 8


def test_clips_are_the_same_with_and_without(records: Records) -> None:
    scanned_manifest(records.root, [*records.paths], default_file(records.root))
    for config in (CONFIG, WITHOUT):
        assert (clips_of(records, config).manifest is None) == (config is WITHOUT)
    for index in range(len(records)):
        ours, theirs = (clips_of(records, config)[ClipKey(0, index, 1.0)] for config in (CONFIG, WITHOUT))
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one.pixels, other.pixels)
        views = [views_of(records, "vivit_4x3", config)[index] for config in (CONFIG, WITHOUT)]
        assert np.array_equal(views[0].pixels, views[1].pixels)


def test_a_known_broken_video_is_not_opened_and_told_as_before(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.path(0).write_bytes(b"no video")
    scanned_manifest(records.root, [*records.paths], default_file(records.root))
    before = views_of(records, "center", WITHOUT)[0].failure
    dataset = views_of(records, "center", CONFIG)
    opened = []
    monkeypatch.setattr("vidtl.data.manifest.open_video", lambda path, *rest: opened.append(path))
    assert dataset[0].failure == before
    assert before is not None
    assert before.reason == "not a video container"
    assert opened == []
    monkeypatch.undo()
    (stand_in, *_) = clips_of(records, CONFIG)[ClipKey(0, 0, 1.0)]
    assert [failure.reason for failure in stand_in.failures] == ["not a video container"]


def test_substitutes_known_to_be_broken_cost_no_attempt(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in set(range(len(records))) - {5}:
        records.path(index).write_bytes(b"no video")
    scanned_manifest(records.root, [*records.paths], default_file(records.root))
    monkeypatch.setattr("vidtl.data.dataset.MAX_SUBSTITUTIONS", 1)
    (clip,) = clips_of(records, CONFIG)[ClipKey(0, 0, 1.0)]
    assert [failure.record for failure in clip.failures] == [0]
    assert np.array_equal(clip.targets, records.targets(5))
    monkeypatch.setattr("vidtl.data.dataset.MAX_SUBSTITUTIONS", 7)
    assert np.array_equal(clips_of(records, WITHOUT)[ClipKey(0, 0, 1.0)][0].pixels, clip.pixels)


def test_a_changed_file_is_told_and_scanned_again(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = scanned_manifest(records.root, [*records.paths], default_file(records.root))
    first, second = records.paths[0], records.paths[1]
    (records.root / first).write_bytes((records.root / second).read_bytes())
    os.utime(records.root / second, ns=(1, 1))
    told: list[str] = []
    logger = logging.getLogger("vidtl.data.manifest")
    monkeypatch.setattr(logger, "warning", lambda message, *values: told.append(message % values))
    for _ in range(2):
        assert manifest.consult(records.root, first) is None
        assert manifest.consult(records.root, second) is None
    assert len(told) == 2
    assert first in told[0]
    assert "bytes then" in told[0]
    assert "another time of change" in told[1]
    assert views_of(records, "center", CONFIG)[0].failure is None


def test_a_decode_that_disagrees_with_the_manifest_is_unreadable(shared_data: Path, tmp_path: Path) -> None:
    """Bytes rot, size and times stay: no frame is silently another one."""
    for name in ("mmaction2__part_0.mp4", "PaddleVideo__example.avi"):
        shutil.copy(shared_data / "videos" / name, tmp_path / name)
        entry = scan_file(ScanJob(tmp_path, name, "packets"))
        scanned = entry.scanned()
        assert scanned is not None
        timeline = scanned.timeline
        assert timeline.pts is not None
        pts = timeline.pts + (np.arange(len(timeline.pts)) >= 5)
        index = timeline.index and dataclasses.replace(timeline.index, pts=pts)
        shifted = dataclasses.replace(scanned, timeline=dataclasses.replace(timeline, pts=pts, index=index))
        with open_video(tmp_path / name, scanned=shifted) as video:
            view = View(np.arange(8), Box(0, 0, video.height, video.width))
            with pytest.raises(UnreadableVideo, match="frame 5 decodes at another time"):
                video.read([view], (16, 16), "rgb")
        other = dataclasses.replace(scanned, coded_size=(16, 16))
        with pytest.raises(UnreadableVideo, match="its header is not the one that the manifest has"):
            open_video(tmp_path / name, scanned=other)


def test_any_damage_is_refused_or_harmless(records: Records, tmp_path: Path) -> None:
    whole = scanned_manifest(records.root, [*records.paths], tmp_path / "manifest.npz")
    content = whole.file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[:length] for length in rng.integers(0, len(content), 40)]
    for place in rng.integers(0, len(content), 150):
        damaged.append(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
    refused = []
    for number, data in enumerate(damaged):
        file = tmp_path / f"damaged{number}.npz"
        file.write_bytes(data)
        try:
            assert [*Manifest.load(file)] == [*whole]
        except UserError as error:
            refused.append((str(error), str(file)))
    assert all(file in error and "\n" not in error for error, file in refused)
    assert len(refused) > 120  # the others hit dates and the like in the archive's frame


def test_a_manifest_is_found_by_setting(records: Records, tmp_path: Path) -> None:
    assert find_manifest(records.root, "auto") is None
    made = scanned_manifest(records.root, [*records.paths], tmp_path / "elsewhere" / "manifest.npz")
    for setting in (made.file, made.file.parent):
        found = find_manifest(records.root, str(setting))
        assert found is not None
        assert [*found] == [*made]
    with pytest.raises(UserError, match=r"data\.manifest"):
        find_manifest(records.root, str(tmp_path / "nowhere"))
    assert find_manifest(records.root, "none") is None
    assert [*pickle.loads(pickle.dumps(found))] == [*made]
    assert len(pickle.dumps(found)) < 1000  # a spawned worker is sent the path


def test_a_path_is_found_among_many_and_costs_little() -> None:
    pts = np.arange(300) * 512
    template = Entry(path="", status="ok", reason="", depth="packets", num_frames=300)
    names = [f"train/opening a bottle/{number:011d}_000010_000020.mp4" for number in range(0, 4000, 2)]
    packed = pack_timeline_of(pts)
    manifest = Manifest.from_entries(
        [dataclasses.replace(template, path=name, timeline=packed, size=1 << 20, mtime_ns=10**18) for name in names],
        Path("manifest.npz"),
    )
    assert [manifest.find(name) for name in names] == list(range(2000))
    assert manifest.find("train/opening a bottle/00000000001_000010_000020.mp4") is None
    assert manifest.find("") is manifest.find("zzz") is None
    assert manifest.num_bytes / len(manifest) < 200


def pack_timeline_of(pts: np.ndarray) -> bytes:
    """A constant rate with B-frames, as x264 makes it by default."""
    from fractions import Fraction

    from vidtl.video.timeline import PacketIndex, Timeline

    order = np.arange(len(pts))
    order[1:-3:4], order[2:-2:4], order[3:-1:4] = order[3:-1:4].copy(), order[1:-3:4].copy(), order[2:-2:4].copy()
    index = PacketIndex(pts, order, pts[:1], order[:1])
    timeline = Timeline.from_pts(pts, Fraction(1, 15360), None, index)
    packed = pack_timeline(timeline)
    back = unpack_timeline(packed, len(pts), Fraction(1, 15360), None)
    assert back.index is not None
    assert np.array_equal(back.index.order, order)
    return packed


def test_entries_survive_the_journal(real: Manifest) -> None:
    import json

    assert [Entry.from_json(json.loads(json.dumps(entry.to_json()))) for entry in real] == [*real]


def test_stamps(tmp_path: Path) -> None:
    assert file_stamp(tmp_path / "none") is None
    (tmp_path / "file").write_bytes(b"abc")
    stamp = file_stamp(tmp_path / "file")
    assert stamp is not None
    assert stamp.size == 3
    assert file_stamp(tmp_path / "file" / "17") == stamp  # an image inside a file of many
