"""Folders of numbered images as videos."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidtl.video import Box, UnreadableVideo, View, open_video

FRAMES = np.random.default_rng(0).integers(0, 256, (12, 16, 20, 3), dtype=np.uint8)
WHOLE = Box(0, 0, 16, 20)


def write(folder: Path, pattern: str = "{:06d}.png", first: int = 1, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(FRAMES[number]).save(folder / pattern.format(first + number))
    return folder


@pytest.mark.parametrize(("pattern", "first"), [("46GP8-{:06d}.png", 1), ("img_{:05d}.png", 1), ("{}.png", 0)])
def test_frames_in_the_order_of_their_numbers(tmp_path: Path, pattern: str, first: int) -> None:
    folder = write(tmp_path / "46GP8", pattern, first)
    (folder / "notes.txt").touch()
    with open_video(folder, frame_rate=24, root=tmp_path) as video:
        assert video.times_s.tolist() == [number / 24 for number in range(12)]
        assert (video.fps, video.height, video.width) == (24, 16, 20)
        indices = np.array([11, 0, 3, 3])
        views = [View(indices, WHOLE), View(indices[::-1], Box(4, 2, 8, 10))]
        whole, part = (video.read([view], (view.box.height, view.box.width), "rgb")[0] for view in views)
        assert np.array_equal(whole, FRAMES[indices])
        assert np.array_equal(part, FRAMES[indices[::-1], 4:12, 2:12])
        with pytest.raises(IndexError):
            video.read([View(np.array([12]), WHOLE)], (16, 20), "rgb")


def test_each_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidtl.video import images

    opened: list[str] = []
    decode = images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda file, path: opened.append(path.name) or decode(file, path))
    with open_video(write(tmp_path / "a"), frame_rate=24) as video:
        video.read([View(np.array([2, 5, 2]), WHOLE), View(np.array([5, 5, 2]), WHOLE)], (16, 20), "rgb")
    assert opened == ["000003.png", "000006.png"]


def test_a_frame_rate_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match=r"a folder.*`frame_rate`"):
        open_video(write(tmp_path / "a"))


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def add(name: str):
    return lambda folder: Image.fromarray(FRAMES[0]).save(folder / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("000005.png"), "image 5 is missing, 1 in all between 1 and 12"),
        (add("000015.png"), "image 13 is missing, 2 in all between 1 and 15"),
        (add("13.png"), None),
        (add("12.png"), "'000012.png' and '12.png' have the same number"),
        (add("cover.png"), "'cover.png' has no number"),
        (add("other_1.png"), "images of several series: '', 'other_'"),
        (add("flow_x_00001.png"), None),
        (add(".hidden_1.png"), None),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "no images"),
    ],
)
def test_gaps_and_strangers(tmp_path: Path, change, message: str | None) -> None:
    folder = write(tmp_path / "a")
    change(folder)
    if message is None:
        open_video(folder, frame_rate=24)
        return
    with pytest.raises(UnreadableVideo, match=message) as caught:
        open_video(folder, frame_rate=24)
    assert caught.value.path == folder


def test_broken_frames_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "000004.png").write_bytes((folder / "000004.png").read_bytes()[:200])
    Image.fromarray(FRAMES[0][:8]).save(folder / "000006.png")
    (folder / "000008.png").unlink()
    os.mkfifo(folder / "000008.png")
    with open_video(folder, frame_rate=24, root=tmp_path) as video:
        assert np.array_equal(video.read([View(np.array([1, 4]), WHOLE)], (16, 20), "rgb")[0], FRAMES[[1, 4]])
        for number, message in ((3, r"000004\.png: "), (5, r"000006\.png: 20 x 8 pixels"), (7, r"not a regular file")):
            with pytest.raises(UnreadableVideo, match=message):
                video.read([View(np.array([number]), WHOLE)], (16, 20), "rgb")


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside")
    root = tmp_path / "root"
    folder = write(root / "a")
    (root / "b").symlink_to(outside)
    (folder / "000003.png").unlink()
    (folder / "000003.png").symlink_to(outside / "000003.png")
    for path in (root / "b", root / "a/../../outside"):
        with pytest.raises(UnreadableVideo, match="outside the data root"):
            open_video(path, frame_rate=24, root=root)
    with (
        open_video(folder, frame_rate=24, root=root) as video,
        pytest.raises(UnreadableVideo, match=r"000003\.png: lies outside the data root"),
    ):
        video.read([View(np.array([2]), WHOLE)], (16, 20), "rgb")
