"""Images as videos of one frame and folders of numbered ones: decoded, turned, limited, refused if damaged."""

import os
import struct
import zlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from tests.video.conftest import read, unreadable
from vidtl.video import Box, View, images, open_video

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "A.PNG", "lossless.webp", "a.JPEG"])
def test_pixels_are_those_that_pillow_decodes(tmp_path: Path, name: str):
    Image.fromarray(PIXELS).save(tmp_path / name, lossless=True)
    expected = PIXELS if name != "a.JPEG" else np.asarray(Image.open(tmp_path / name))
    assert np.array_equal(read(tmp_path / name), expected[None])
    with (tmp_path / name).open("rb") as file:
        assert np.array_equal(read(file), expected[None])


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str):
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(file := tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}")
    decoded = read(file)[0]
    assert decoded.shape == PIXELS.shape
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB")).astype(int)).mean() < 25


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path):
    gray = (np.arange(24 * 40, dtype=np.uint16) * 68).reshape(24, 40)
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[0], np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    turned = PIXELS.transpose(1, 0, 2)
    shown = [PIXELS, PIXELS[:, ::-1], PIXELS[::-1, ::-1], PIXELS[::-1]]
    shown += [turned, turned[:, ::-1], turned[::-1, ::-1], turned[::-1]]
    assert np.array_equal(read(tmp_path / "a.png")[0], shown[orientation - 1])


def test_boxes_are_cropped_and_resized_in_rgb(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with open_video(tmp_path / "a.png") as video:
        views = [View(np.zeros(3, np.int64), box) for box in (Box(2, 5, 8, 10), Box(0, 0, 24, 40))]
        clips = video.read(views, (8, 10), "rgb")
        assert clips.shape == (2, 3, 8, 10, 3)
        assert np.array_equal(clips[0], np.broadcast_to(PIXELS[2:10, 5:15], (3, 8, 10, 3)))
        with pytest.raises(IndexError):
            video.read([View(np.ones(1, np.int64), Box(0, 0, 8, 8))], (8, 8), "rgb")
        with refused("data.pixel_format", "'planar'", "'rgb'"):
            video.read(views, (8, 10), "planar")


def png_header(width: int, height: int) -> bytes:
    chunk = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I17sII4s", 13, chunk, zlib.crc32(chunk), 9, b"IDAT")


def test_unreadable_images_are_named(tmp_path: Path):
    file = BytesIO()
    Image.fromarray(np.repeat(PIXELS, 8, axis=0)).save(file, "JPEG")
    jpeg = file.getvalue()
    animation = BytesIO()
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(animation, "WEBP", save_all=True, append_images=frames[1:])
    cases = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "empty.png": (b"", "not an image"),
        "html.jpg": (b"<html>404</html>", "not an image"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        "bomb.png": (png_header(40_000, 40_000), "ecompression"),
        "big.png": (png_header(8192, 4321), "8192 x 4321 pixels exceed the limit"),
        "moving.webp": (animation.getvalue(), "animation"),
        "gif.png": (b"GIF89a" + bytes(20), "not an image"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with unreadable(tmp_path / name, message):
            open_video(tmp_path / name)
    Image.fromarray(PIXELS).save(tmp_path / "video.mp4", "PNG")
    with unreadable("it begins as an image does"):
        open_video(tmp_path / "video.mp4")


FRAMES = np.random.default_rng(0).integers(0, 256, (12, 16, 20, 3), dtype=np.uint8)
WHOLE = Box(0, 0, 16, 20)


def write(folder: Path, pattern: str = "{:06d}.png", first: int = 1, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(FRAMES[number]).save(folder / pattern.format(first + number))
    return folder


PATTERNS = ["46GP8-{:06d}.png", "img_{:05d}.png", "{}.png", "frame{:03d}_rgb.ppm", "S01-{}_cam2.bmp", "{:04d}.tif"]


@pytest.mark.parametrize(("pattern", "first"), [(pattern, number % 3) for number, pattern in enumerate(PATTERNS)])
def test_frames_in_the_order_of_their_numbers(tmp_path: Path, pattern: str, first: int):
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


def test_each_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    decode = images.decode_image
    monkeypatch.setattr(images, "decode_image", lambda file, path: opened.append(path.name) or decode(file, path))
    with open_video(write(tmp_path / "a"), frame_rate=24) as video:
        video.read([View(np.array([2, 5, 2]), WHOLE), View(np.array([5, 5, 2]), WHOLE)], (16, 20), "rgb")
    assert opened == ["000003.png", "000006.png"]
    with unreadable("`frame_rate`"):
        open_video(tmp_path / "a")


def numbered(*numbers: int) -> list[str]:
    return [f"{number:06d}.png" for number in numbers]


TWELVE = numbered(*range(1, 13))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (numbered(*range(0, 60, 5)), None),
        (numbered(*range(7, 43, 3)), None),
        ([*TWELVE, "13.png", "flow_x_00001.png", ".hidden_1.png", "cover.png", "Folder.jpg"], None),
        (numbered(*range(0, 30, 5), *range(35, 65, 5)), "image 30 is missing, as numbers rise from 0 to 60 by 5"),
        (numbered(0, 17, 43), "image 34 is missing, as numbers rise from 0 to 43 by 17"),
        (TWELVE[:4] + TWELVE[5:], "image 5 is missing, as numbers rise from 1 to 12 by 1"),
        ([*TWELVE, "000015.png"], "image 13 is missing"),
        ([*TWELVE, "12.png"], "'000012.png' and '12.png' have the same number"),
        ([*TWELVE, "scene.png"], "images of several series: '#', 'scene'"),
        ([*TWELVE, "other_1.png"], "images of several series: '#', 'other_#'"),
        ([*(f"1_{number}.png" for number in range(1, 12)), "2_12.png"], "2 numbers differ in the names of its images"),
        ([], "no images"),
    ],
)
def test_numbers_rise_by_one_step_in_one_series(tmp_path: Path, names: list[str], message: str | None):
    for number, name in enumerate(names):
        Image.fromarray(FRAMES[number % 12]).save(tmp_path / name)
    with (
        unreadable(f"{tmp_path}: {message}") if message else nullcontext(),
        open_video(tmp_path, frame_rate=5) as video,
    ):
        assert video.times_s[:12].tolist() == [number / 5 for number in range(12)]
        assert np.array_equal(read(tmp_path, range(12), frame_rate=5), FRAMES)


def test_broken_frames_are_named(tmp_path: Path):
    folder = write(tmp_path / "a")
    (folder / "000004.png").write_bytes((folder / "000004.png").read_bytes()[:200])
    Image.fromarray(FRAMES[0][:8]).save(folder / "000006.png")
    (folder / "000008.png").unlink()
    os.mkfifo(folder / "000008.png")
    options = {"frame_rate": 24, "root": tmp_path}
    assert np.array_equal(read(folder, [1, 4], **options), FRAMES[[1, 4]])
    for number, reason in ((3, ""), (5, "20 x 8 pixels"), (7, "not a regular file")):
        with unreadable(f"{number + 1:06}.png: ", reason):
            read(folder, [number], **options)


def test_nothing_outside_the_root_is_read(tmp_path: Path):
    outside, root = write(tmp_path / "outside"), tmp_path / "root"
    folder = write(root / "a")
    (root / "b").symlink_to(outside)
    (root / "link.png").symlink_to(outside / "000003.png")
    (folder / "000003.png").unlink()
    (folder / "000003.png").symlink_to(outside / "000003.png")
    for path in (root / "b", root / "a/../../outside", root / "link.png", root / "../outside/000003.png"):
        with unreadable("outside the data root"):
            open_video(path, frame_rate=24, root=root)
    with unreadable("000003.png: lies outside the data root"):
        read(folder, [2], frame_rate=24, root=root)


def test_scans_and_bytes_are_limited(tmp_path: Path) -> None:
    """Each of the scans of a JPEG is decoded over the whole picture."""
    Image.fromarray(PIXELS).save(file := tmp_path / "a.jpg", progressive=True)
    content = file.read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    for count in (50, 200):
        file.write_bytes(content[:-2] + last * count + content[-2:])
        with nullcontext() if count == 50 else unreadable(file, "scans", "100"):
            assert read(file).shape == (1, 24, 40, 3)
    os.truncate(file, (512 << 20) + 1)
    with unreadable(file, "536870913"), file.open("rb") as stream:
        open_video(stream)
