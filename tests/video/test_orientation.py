"""Rotation and mirroring."""

from itertools import islice, product
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.conftest import read
from vidtl.video import Box, View, open_video
from vidtl.video.reader import Orientation
from vidtl.video.safety import may_be_rotated

# Coefficients (a, b, c, d) of FFmpeg's display matrix for the eight ways to turn a picture.
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def display_matrix(a: float, b: float, c: float, d: float) -> bytes:
    rows = np.array([[a, b, 0], [c, d, 0], [0, 0, 0]]) * 65536
    rows[2, 2] = 1 << 30
    return rows.astype(np.int32).tobytes()


@pytest.mark.parametrize("coefficients", MATRICES)
def test_every_pixel_is_shown_where_the_matrix_puts_it(coefficients: tuple[int, int, int, int]):
    a, b, c, d = coefficients
    height, width = 3, 5
    coded = np.arange(height * width).reshape(height, width)
    orientation = Orientation.from_matrix(display_matrix(a, b, c, d))
    displayed = orientation.apply(coded)
    assert displayed.shape == orientation.displayed_size(height, width)
    # Pixel centers, moved back so that the shown picture starts at (0, 0).
    corners = [(a * x + c * y, b * x + d * y) for x, y in product((0, width), (0, height))]
    left, top = min(x for x, _ in corners), min(y for _, y in corners)
    for y, x in product(range(height), range(width)):
        shown_x = a * (x + 0.5) + c * (y + 0.5) - left
        shown_y = b * (x + 0.5) + d * (y + 0.5) - top
        assert displayed[int(shown_y), int(shown_x)] == coded[y, x]
    box = Box(0, 1, 2, 1)
    part = displayed[box.top : box.top + box.height, box.left : box.left + box.width]
    top, left, height, width = orientation.coded_box(box, *displayed.shape)
    np.testing.assert_array_equal(orientation.apply(coded[top : top + height, left : left + width]), part)
    assert orientation.is_mirrored() == (a * d - b * c < 0)


def test_scales_are_ignored_and_other_angles_refused():
    assert Orientation.from_matrix(display_matrix(1.5, 0, 0, -2)) == Orientation(mirror_rows=True)
    assert Orientation.from_matrix(bytes(36)) == Orientation()
    with pytest.raises(ValueError, match="no multiple of a quarter turn"):
        Orientation.from_matrix(display_matrix(0.7, 0.7, -0.7, 0.7))


@pytest.mark.parametrize(
    ("name", "orientation", "size"),
    [
        ("decord__video_0.mov", Orientation(), (320, 568)),
        ("decord__video_90.mov", Orientation(transpose=True, mirror_columns=True), (568, 320)),
        ("decord__video_180.mov", Orientation(mirror_rows=True, mirror_columns=True), (320, 568)),
        ("ExoPlayer__video_1.mp4", Orientation(transpose=True, mirror_rows=True), (352, 288)),
        ("media__sample_rotate_and_reflect.mp4", Orientation(transpose=True), (1080, 720)),
    ],
)
@pytest.mark.parametrize("form", ["planar", "rgb"])
def test_turned_files_show_the_turned_picture(shared_data: Path, name: str, orientation, size, form):
    with open_video(shared_data / "videos" / name) as video:
        assert (video.height, video.width) == size
        height, width = size
        whole = video.read([View(np.array([1]), Box(0, 0, height, width))], size, form)[0, 0]
        # A box at another corner shows the same pixels as that part of the whole picture.
        box = Box(height // 4 * 2, 8, height // 4 * 2, 64)
        part = video.read([View(np.array([1]), box)], (box.height, box.width), form)[0, 0]
        _, frame = islice(video.source.decode_from_start(), 2)
    inside = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
    np.testing.assert_array_equal(part[: box.height], whole[inside])
    if form == "planar":
        luma = frame.to_ndarray(format="yuv420p")[: frame.height]
        np.testing.assert_array_equal(whole[:height], orientation.apply(luma))


def test_only_headers_with_a_matrix_cost_a_decode(shared_data: Path):
    turned = {path.name for path in (shared_data / "videos").glob("*.m*") if may_be_rotated(path, "mov")}
    assert turned == {
        "decord__video_90.mov",
        "decord__video_180.mov",
        "ExoPlayer__video_1.mp4",
        "media__sample_rotate_and_reflect.mp4",
    }
    assert not any(may_be_rotated(path, "matroska") for path in (shared_data / "videos").glob("*.webm"))


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_the_rotation_of_both_containers_is_applied(tmp_path: Path, suffix: str, degrees: int):
    path = tmp_path / f"turned.{suffix}"
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[:16, :16] = 255  # a white corner, top left
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write display matrices")
        stream.set_display_rotation(degrees)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read(path)[0], np.rot90(picture, degrees // 90), atol=12)
