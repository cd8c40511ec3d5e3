"""Every allowed container, cut, begun late or misnamed: FFmpeg's own frames, by content alone; times; attacks."""

import logging
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.video.conftest import decoded, equal_or_refused, read, skip_without, unreadable
from tests.video.test_made import make_video
from vidtl.data.dataset import available_frames
from vidtl.prepare.report import _files
from vidtl.prepare.scan import ScanJob, scan_file
from vidtl.prepare.transcode import CopyJob, CopySettings, copy_video
from vidtl.video import DECODERS, open_video

pytestmark = pytest.mark.timeout(60)

TS, PS, MOV = ("ts", "libx264", {"bf": "2"}), ("mpg", "mpeg2video", {"bf": "2"}), ("mov", "libx264", {})


def first_box(kind: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:4] + kind + data[8:]


BEGINNINGS: dict[str, Any] = {
    "transport stream cut within a packet": (TS, lambda data: data[1000:]),
    "transport stream after other bytes": (TS, lambda data: bytes(300) + data),
    "camcorder's transport stream": (TS, lambda data: b"".join(bytes(4) + part for part in packets(data))),
    "program stream cut anywhere": (PS, lambda data: data[777:]),
    "program stream after a recorder's header": (PS, lambda data: b"IMKH\1\2\0\0\2\0\0\1" + bytes(28) + data),
    "MPEG-2 cut anywhere": (("m2v", "mpeg2video", {}), lambda data: data[333:]),
    "H.264 cut anywhere": (("h264", "libx264", {}), lambda data: data[2222:]),
    **{kind: (MOV, first_box(kind.encode())) for kind in ("styp", "pnot", "udta", "pict", "meta", "wide")},
}


def packets(data: bytes) -> list[bytes]:
    return [data[start : start + 188] for start in range(0, len(data), 188)]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("title", BEGINNINGS)
def test_frames_of_files_that_begin_anyhow(tmp_path: Path, title: str, decoder: str):
    (suffix, codec, options), change = BEGINNINGS[title]
    made = make_video(tmp_path / f"made.{suffix}", codec, g="12", **options)
    path = tmp_path / f"changed.{suffix}"
    path.write_bytes(change(made.read_bytes()))
    expected = decoded(path)
    assert len(expected) >= 20
    with open_video(path) as video:
        assert len(video.times_s) == len(expected)
    equal_or_refused(path, decoder, expected)


@pytest.mark.parametrize("decoder", DECODERS)
def test_digital_video_of_cameras(tmp_path: Path, decoder: str):
    path = make_video(tmp_path / "tape.dv", "dvvideo", (576, 720), numbers=range(4))
    equal_or_refused(path, decoder, decoded(path))


@pytest.mark.parametrize(
    ("suffix", "codec"), [("h264", "libx264"), ("gif", "gif"), ("mxf", "mpeg2video"), ("mp4", "libx264")]
)
def test_neither_name_nor_kind_of_object_matters(tmp_path: Path, suffix: str, codec: str):
    made = make_video(tmp_path / f"made.{suffix}", codec, pix_fmt="rgb8" if codec == "gif" else "yuv420p")
    expected = read(made, range(40))
    with open_video(made) as video:
        scanned = video.source.scanned()
    for name in ("video", "clip.txt", "list.m3u8", "image%d.jp2", "concat.ffconcat"):
        path = tmp_path / name
        path.write_bytes(made.read_bytes())
        with path.open("rb") as file:
            for source in (path, file, BytesIO(made.read_bytes())):
                assert np.array_equal(read(source, range(40), scanned=scanned), expected)
                assert np.array_equal(read(source, [7, 3]), expected[[7, 3]])


CODECS = {"h264": "libx264", "hevc": "libx265", "mpeg2video": "mpeg2video", "mjpeg": "mjpeg", "m4v": "mpeg4"}


@pytest.mark.parametrize("form", CODECS)
def test_elementary_streams_have_their_own_rate_or_an_assumed_one(tmp_path: Path, caplog: Any, form: str):
    caplog.set_level(logging.INFO, "vidtl.video.source")
    rate, pix_fmt = 0 if form in ("mjpeg", "m4v") else 50, "yuvj420p" if form == "mjpeg" else "yuv420p"
    path = make_video(tmp_path / "stream", CODECS[form], rate=50, form=form, pix_fmt=pix_fmt)
    with open_video(path) as video:
        assert video.fps == (rate or 25)
        assert video.source.scanned().rate == (rate or None)
    (codecs,) = _files([scan_file(ScanJob(tmp_path, path.name, "packets"))])["codecs"]
    assert ("assumed" in caplog.text) == ("25 frames per second (assumed)" in codecs) == (rate == 0)


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("mjpeg", "yuvj420p"), ("rawvideo", "bgr24"), ("huffyuv", "rgb24"), ("ffv1", "yuv420p"), ("utvideo", "yuv420p")],
)
@pytest.mark.parametrize("dropped", [(), (1, 2, 20)])
def test_packets_tell_the_frames_of_avi_whose_index_is_true(tmp_path: Path, codec: str, pix_fmt: str, dropped: Any):
    numbers = [number for number in range(40) if number not in dropped]
    path = make_video(tmp_path / "made.avi", codec, numbers=numbers, pix_fmt=pix_fmt)
    whole, expected = path.read_bytes(), decoded(path)
    at = whole.rindex(b"idx1") + 8 + 16 * 10  # of its tenth entry
    swapped = whole[:at] + whole[at + 16 : at + 32] + whole[at : at + 16] + whole[at + 32 :]
    for content, is_indexed in ((whole, True), (swapped, False), (whole[: at - 168], True)):
        path.write_bytes(content)
        with open_video(path) as video:
            assert [round(time * 25) for time in video.times_s] == numbers
            assert (video.source.timeline.index is not None) == is_indexed
            scanned = video.source.scanned()
        for known in (None, scanned):
            for number in (0, 3, 19, 30, len(expected) - 1):
                assert np.array_equal(read(path, [number], scanned=known)[0], expected[number])


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("suffix", "start"), [("mp4", 50), ("mkv", 50), ("mp4", 0), ("mkv", 1)])
def test_times_count_from_the_start_of_the_sound(tmp_path: Path, suffix: str, start: int, decoder: str):
    numbers = range(start, start + 50)
    path = make_video(tmp_path / f"late.{suffix}", "libx264", numbers=numbers, after_silence=True)
    skip_without(decoder, path)
    with open_video(path, decoder) as video:
        np.testing.assert_allclose(video.times_s, (start + np.arange(50)) / 25, atol=1e-3)
        segment: Any = SimpleNamespace(segment_starts_s=[start / 25 + 0.5], segment_ends_s=[start / 25 + 1.0])
        assert available_frames(video, segment, 0, 0.0).tolist() == pytest.approx(range(13, 25), abs=1)
        segment.segment_ends_s = segment.segment_starts_s = [-1.0]
        with unreadable("no frame between -1 s and -1 s", f"{start / 25:g} s"):
            available_frames(video, segment, 0, 0.0)
    if decoder == "pyav" and start == 50:
        entry = scan_file(ScanJob(tmp_path, path.name, "packets"))
        copied = copy_video(CopyJob(tmp_path, entry, tmp_path, "copy", CopySettings(48)))
        with open_video(tmp_path / "copy") as copy, open_video(path) as video:
            assert copied.status == "ok"
            np.testing.assert_allclose(copy.times_s, video.times_s, atol=1e-6)
