"""Files made for one difficulty each: open GOPs, odd sizes, pixel formats, hidden pictures, no index, rotation."""

from fractions import Fraction
from itertools import islice, product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from benchmarks.conformance import plain_decode
from tests.video.conftest import decoded, equal_or_refused, read, rgb_of, unreadable, whole
from vidtl.video import Box, Color, View, open_video
from vidtl.video.clip import change_matrix
from vidtl.video.reader import Orientation
from vidtl.video.safety import may_be_rotated

NUM_FRAMES = 40


def picture(number: int, height: int, width: int) -> np.ndarray:
    """RGB that differs from frame to frame and moves: a gradient that slides, with a bar at x = number."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([(columns * 4 + number * 5) % 256, (rows * 6) % 256, (columns + rows + number) % 256], axis=-1)
    frame[:, number % width] = 255
    return frame.astype(np.uint8)


def encode(
    path, codec, frames, pix_fmt="yuv420p", degrees=0, rate=25, form=None, numbers=range(NUM_FRAMES),
    after_silence=False, **options,
):  # fmt: skip
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if degrees and not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write display matrices")
        if degrees:
            stream.set_display_rotation(degrees)
        if after_silence:
            audio = container.add_stream("aac", rate=8000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 8000, 0
            container.mux(audio.encode(silence) + audio.encode(None))
        for number, rgb in zip(numbers, frames, strict=False):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_video(path: Path, codec: str, size=(48, 64), numbers=range(NUM_FRAMES), **options: Any) -> Path:
    return encode(path, codec, [picture(number, *size) for number in numbers], numbers=numbers, **options)


MADE = {
    "open_gop.mp4": ("libx264", {"g": "10", "bf": "3", "x264-params": "open_gop=1:scenecut=0"}),
    "open_gop_hevc.mkv": ("libx265", {"x265-params": "keyint=10:min-keyint=10:open-gop=1:scenecut=0:log-level=none"}),
    "intra_only.mov": ("libx264", {"g": "1"}),
    "one_key_frame.mkv": ("libx264", {"g": "1000", "bf": "3", "b_strategy": "0"}),
    "odd_size.webm": ("libvpx-vp9", {"g": "12", "size": (47, 51)}),
    "bits10.mp4": ("libx264", {"g": "12", "pix_fmt": "yuv420p10le"}),
    "chroma422.mp4": ("libx264", {"g": "12", "pix_fmt": "yuv422p"}),
    "chroma444.mkv": ("libx264", {"g": "12", "pix_fmt": "yuv444p"}),
    "rgb.mkv": ("libx264rgb", {"g": "12", "pix_fmt": "rgb24", "crf": "5"}),
    "gray.mp4": ("libx264", {"g": "12", "pix_fmt": "gray"}),
    "vp8.webm": ("libvpx", {"g": "20"}),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "b_frames.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "b_frames_asp.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "long_gop.ts": ("libx264", {"g": "15", "bf": "3"}),
    "program.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
    "flash.flv": ("libx264", {"g": "12", "bf": "2"}),
    "av1.mp4": ("libsvtav1", {"g": "16", "preset": "12", "svtav1-params": "lp=1", "size": (64, 64)}),
    "jpeg.avi": ("mjpeg", {"pix_fmt": "yuvj422p"}),
    "h264.avi": ("libx264", {"g": "12", "bf": "0"}),
    "divx.avi": ("mpeg4", {"g": "12"}),
    "lossless.mkv": ("ffv1", {}),
    "gray16.mkv": ("ffv1", {"pix_fmt": "gray16le"}),
    "raw.avi": ("rawvideo", {"pix_fmt": "bgr24"}),
    "huffman.avi": ("huffyuv", {"pix_fmt": "rgb24"}),
    "alpha.mov": ("qtrle", {"pix_fmt": "argb"}),
    "alpha.webm": ("libvpx-vp9", {"g": "12", "pix_fmt": "yuva420p"}),
    "alpha10.mov": ("prores_ks", {"pix_fmt": "yuva444p10le"}),
    "cinepak.avi": ("cinepak", {"pix_fmt": "rgb24"}),
    "bits5.avi": ("msvideo1", {"pix_fmt": "rgb555le"}),
    "windows.wmv": ("wmv2", {"g": "12"}),
    "palette.gif": ("gif", {"pix_fmt": "rgb8"}),
    "animated.apng": ("apng", {"pix_fmt": "rgb24"}),
    "broadcast.mxf": ("mpeg2video", {"g": "12", "bf": "2"}),
    "vp8.ivf": ("libvpx", {"g": "20"}),
    "xiph.ogv": ("libvpx", {"g": "20"}),
    "plain.y4m": ("wrapped_avframe", {}),
    "elementary.h264": ("libx264", {"g": "12", "bf": "3"}),
    "elementary.hevc": ("libx265", {"x265-params": "keyint=10:log-level=none"}),
    "elementary.m1v": ("mpeg1video", {"g": "12", "bf": "2"}),
    "elementary.m2v": ("mpeg2video", {"g": "12", "bf": "2"}),
    "elementary.m4v": ("mpeg4", {"g": "12", "bf": "2", "form": "m4v"}),
    "elementary.mjpeg": ("mjpeg", {"pix_fmt": "yuvj420p"}),
}


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, options = MADE[request.param]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    return make_video(tmp_path_factory.mktemp("made") / request.param, codec, **options)


def test_frames_equal_those_of_a_plain_decode(made: Path):
    count = len(decoded(made))
    with open_video(made) as video:
        assert len(video.times_s) == count
        assert video.fps == pytest.approx(25, rel=0.03)
        box = Box(3, 5, video.height // 2 * 2 - 8, video.width // 2 * 2 - 8)
        for indices in ([count - 1, 0, 20, 21, 9, 11], [30], [12], [count - 1]):
            view = View(np.array(indices), box)
            expected = plain_decode(video, view)
            for form in ("planar", "rgb"):
                np.testing.assert_array_equal(video.read([view], box[2:], form), expected[form])


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_other_decoders_deliver_the_same_frames_or_refuse_the_file(made: Path, decoder: str):
    equal_or_refused(made, decoder, decoded(made))


def test_pictures_are_those_that_were_encoded(made: Path):
    """Guards the order of frames and gross errors of color, which a comparison with another decode would share."""
    numbers = range(0, NUM_FRAMES, 7)
    rgb = read(made, numbers).astype(int)
    candidates = np.stack([picture(k, *rgb.shape[1:3]) for k in range(NUM_FRAMES)])
    if made.name == "gray.mp4":
        candidates = candidates.mean(-1, keepdims=True)
    assert [int(np.abs(candidates - frame).mean((1, 2, 3)).argmin()) for frame in rgb] == [*numbers]


@pytest.mark.parametrize(
    "options", [{"g": "2", "bf": "2"}, {"g": "1000", "bf": "0", "x264-params": "intra-refresh=1:keyint=10"}]
)
def test_every_frame_of_flv_from_a_new_reader(tmp_path: Path, options: dict[str, str]):
    """Its demuxer refuses to seek before the first entry of its index, which it makes as it reads."""
    path = make_video(tmp_path / "made.flv", "libx264", **options)
    with open_video(path) as video:
        scanned = video.source.scanned()
    for known in (None, scanned):
        for number, expected in enumerate(decoded(path)):
            assert np.array_equal(read(path, [number], scanned=known)[0], expected), number


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("skipped", [1, 10])
def test_files_that_begin_within_a_group_of_pictures(tmp_path: Path, codec: str, skipped: int):
    """Its packets promise more frames than come out: those that refer to what was cut off are dropped."""
    options = {"libx264": MADE["open_gop.mp4"][1], "libx265": MADE["open_gop_hevc.mkv"][1]}[codec]
    whole, cut = make_video(tmp_path / "whole.mp4", codec, **options), tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][skipped:]:
            packet.stream = stream
            target.mux(packet)
    frames = decoded(cut)
    with open_video(cut) as video:
        assert len(video.times_s) == len(frames) < NUM_FRAMES - skipped
    for number, rgb in zip((0, -1), read(cut, [0, len(frames) - 1]), strict=True):
        assert np.abs(rgb.astype(int) - frames[number]).mean() < 1


def test_gray_and_rgb_files_become_limited_bt601_planes(tmp_path: Path):
    expected = av.VideoFrame.from_ndarray(picture(0, 48, 64), format="rgb24")
    for pix_fmt, source in (("gray", expected.reformat(format="gray")), ("bgr0", expected)):
        path = make_video(tmp_path / f"{pix_fmt}.mkv", "ffv1", pix_fmt=pix_fmt, numbers=[0])
        with open_video(path) as video:
            assert video.color == Color("bt601", full_range=False)
        luma = source.to_ndarray(format="rgb24") @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(read(path, form="planar")[0, :48], 16 + luma * 219 / 255, atol=2)


def test_a_file_too_large_to_keep_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_video(tmp_path / "b_frames.avi", "mpeg4", g="12", bf="2")
    clips = []
    for limit in (64 << 20, 10_000):
        monkeypatch.setattr("vidtl.video.source._KEPT_BYTES", limit)
        with open_video(path) as video:
            assert len(video.source.kept or ()) == (len(video.times_s) if limit > 10_000 else 0)
            clips.append(video.read([View(np.array([38, 2, 17]), whole(video))], (48, 64), "planar"))
    np.testing.assert_array_equal(*clips)


def test_pictures_beyond_the_limit_are_refused_from_the_header(tmp_path: Path):
    path = encode(tmp_path / "bomb.mp4", "libx264", [np.zeros((4352, 8256, 3), np.uint8)], preset="ultrafast")
    assert path.stat().st_size < 1 << 20
    with unreadable("pictures of 8256 x 4352 exceed the limit of 8192 x 4320"):
        open_video(path)


def test_a_stream_that_changes_its_size_is_scaled_to_that_of_its_header(tmp_path: Path):
    parts = [make_video(tmp_path / f"{n}.ts", "libx264", (48 * n, 64 * n), g="5") for n in (1, 2)]
    (tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_video(tmp_path / "joined.ts") as video:
        count = len(video.times_s)
    assert count > NUM_FRAMES
    first, last = read(tmp_path / "joined.ts", [0, count - 1]).astype(int)
    small = av.VideoFrame.from_ndarray(picture(NUM_FRAMES - 1, 96, 128), format="rgb24").reformat(width=64, height=48)
    assert np.abs(first - picture(0, 48, 64)).mean() < 40
    assert np.abs(last - small.to_ndarray()).mean() < 40


def test_shrinking_averages_and_enlarging_interpolates(tmp_path: Path):
    board = np.kron(np.indices((120, 160)).sum(0) % 2, np.ones((2, 2)))[..., None].repeat(3, -1) * 255
    path = encode(tmp_path / "checks.mkv", "ffv1", [board.astype(np.uint8)])
    # A tenth of the size: every output pixel averages black and white; plain bilinear would pick some of them.
    assert np.abs(read(path, size=(20, 26)).astype(int) - 127).max() <= 3
    with open_video(path) as video:
        same = video.read([View(np.array([0]), Box(10, 20, 60, 40))], (60, 40), "rgb")[0, 0]
    np.testing.assert_allclose(same, board[10:70, 20:60], atol=2)


def test_changing_the_matrix_restores_rgb_from_the_wrong_conversion():
    rng = np.random.default_rng(0)
    yuv = rng.uniform(0.3, 0.7, 500), *rng.uniform(-0.1, 0.1, (2, 500))
    wrong, right = (np.round(rgb_of(matrix, *yuv) * 255).astype(np.uint8) for matrix in ("bt601", "bt709"))
    assert np.abs(wrong.astype(int) - right).max() > 5
    changed = change_matrix(wrong.reshape(5, 10, 10, 3), "bt601", "bt709").reshape(-1, 3)
    np.testing.assert_allclose(changed, right.astype(int), atol=2)


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


TURNED = {
    "decord__video_90.mov": (Orientation(transpose=True, mirror_columns=True), (568, 320)),
    "decord__video_180.mov": (Orientation(mirror_rows=True, mirror_columns=True), (320, 568)),
    "ExoPlayer__video_1.mp4": (Orientation(transpose=True, mirror_rows=True), (352, 288)),
    "media__sample_rotate_and_reflect.mp4": (Orientation(transpose=True), (1080, 720)),
}


@pytest.mark.parametrize("name", TURNED)
def test_turned_files_show_the_turned_picture(shared_data: Path, name: str):
    orientation, size = TURNED[name]
    with open_video(shared_data / "videos" / name) as video:
        assert (video.height, video.width) == size
        # A box at another corner shows the same pixels as that part of the whole picture.
        box = Box(video.height // 4 * 2, 8, video.height // 4 * 2, 64)
        for form in ("rgb", "planar"):
            shown = video.read([View(np.array([1]), whole(video))], size, form)[0, 0]
            part = video.read([View(np.array([1]), box)], (box.height, box.width), form)[0, 0]
            inside = shown[box.top : box.top + box.height, box.left : box.left + box.width]
            np.testing.assert_array_equal(part[: box.height], inside)
        _, frame = islice(video.source.decode_from_start(), 2)
    luma = frame.to_ndarray(format="yuv420p")[: frame.height]
    np.testing.assert_array_equal(shown[: video.height], orientation.apply(luma))


def test_only_headers_with_a_matrix_cost_a_decode(shared_data: Path):
    turned = {path.name for path in (shared_data / "videos").glob("*.m*") if may_be_rotated(path, "mov")}
    assert turned == set(TURNED)
    assert not any(may_be_rotated(path, "matroska") for path in (shared_data / "videos").glob("*.webm"))


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_the_rotation_of_both_containers_is_applied(tmp_path: Path, suffix: str, degrees: int):
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[:16, :16] = 255  # a white corner, top left
    path = encode(tmp_path / f"turned.{suffix}", "libx264", [picture], degrees=degrees)
    np.testing.assert_allclose(read(path)[0], np.rot90(picture, degrees // 90), atol=12)
