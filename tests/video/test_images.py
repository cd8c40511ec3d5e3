"""Images as videos of one frame: decoded, turned, limited, and refused where they are damaged or outside the root."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidtl.errors import UserError
from vidtl.video import Box, UnreadableVideo, View, open_video

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)


def read_whole(path: Path, root: Path | None = None) -> np.ndarray:
    with open_video(path, root=root) as video:
        view = View(np.zeros(1, np.int64), Box(0, 0, video.height, video.width))
        assert video.times_s.tolist() == [0]
        return video.read([view], (video.height, video.width), "rgb")[0, 0]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "A.PNG", "lossless.webp"])
def test_pixels_are_exact(tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name, lossless=True)
    assert np.array_equal(read_whole(tmp_path / name), PIXELS)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.JPEG")
    assert np.array_equal(read_whole(tmp_path / "a.JPEG"), np.asarray(Image.open(tmp_path / "a.JPEG")))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    decoded = read_whole(tmp_path / f"a.{suffix}")
    assert decoded.shape == PIXELS.shape
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB")).astype(int)).mean() < 25


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    gray = (np.arange(24 * 40, dtype=np.uint16) * 68).reshape(24, 40)
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert np.array_equal(read_whole(tmp_path / "a.png"), np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    shown = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }[orientation]
    assert np.array_equal(read_whole(tmp_path / "a.png"), shown)


def test_boxes_are_cropped_and_resized_in_rgb(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with open_video(tmp_path / "a.png") as video:
        views = [View(np.zeros(3, np.int64), Box(2, 5, 8, 10)), View(np.zeros(3, np.int64), Box(0, 0, 24, 40))]
        clips = video.read(views, (8, 10), "rgb")
        assert clips.shape == (2, 3, 8, 10, 3)
        assert np.array_equal(clips[0], np.broadcast_to(PIXELS[2:10, 5:15], (3, 8, 10, 3)))
        with pytest.raises(IndexError):
            video.read([View(np.ones(1, np.int64), Box(0, 0, 8, 8))], (8, 8), "rgb")
        with pytest.raises(UserError, match=r"data\.pixel_format is 'planar'; allowed for images .*: 'rgb'"):
            video.read(views, (8, 10), "planar")


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 9)
        + b"IDAT"
    )


def test_unreadable_images_are_named(tmp_path: Path) -> None:
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
        "bomb.png": (png_header(40_000, 40_000), "exceed|bomb"),
        "big.png": (png_header(8192, 4321), "8192 x 4321 pixels exceed the limit"),
        "moving.webp": (animation.getvalue(), "animation"),
        "gif.png": (b"GIF89a" + bytes(20), "not an image"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVideo, match=message) as caught:
            open_video(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_images_outside_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    for path in (root / "link.png", root / "../secret.png"):
        with pytest.raises(UnreadableVideo, match="outside the data root"):
            open_video(path, root=root)


def test_a_picture_called_mp4_is_no_video(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match="not a video container"):
        open_video(tmp_path / "a.mp4")
