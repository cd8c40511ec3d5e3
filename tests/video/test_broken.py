"""Damaged and hostile files and paths: a documented verdict for each, never a crash, a hang or a wrong frame."""

import os
import socket
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.stress.decoding import HANG_S, in_killable_child, judge_mutated, make_seeds, verdict
from tests.video.conftest import read, skip_without, unreadable
from vidtl.video import DECODERS, open_video
from vidtl.video.pyav import PyAVReader
from vidtl.video.rgb_frames import RGBFramesReader

pytestmark = pytest.mark.timeout(60)

REFUSED = {
    "zero_byte.mp4": "the file is empty",
    "jpeg_named.mp4": "no video stream, but by its first bytes: image",
    "ExoPlayer__sample_opus.mp4": "no video stream",
    "small__Mpeg4.mp4": "no video stream",
    "media__video_init.mp4": "no frames, or encrypted ones: no picture size or pixel format is found",
    "mp4parse-rust__invalid_userdata.mp4": "no frames, or encrypted ones",
    "mp4parse-rust__test_case_1185230.mp4": "no frames, or encrypted ones",
    "derived_truncated60_mmaction2_test.mp4": "not a video, or one with a damaged header",
}
# Number of frames, the first that cannot be read, and its error.
DAMAGED = {
    "derived_truncated50_paddle_example.avi": (67, 66, "frame 66 is damaged"),
    "decord__corrupted.mp4": (50, 49, "Invalid data found when processing input"),
    "media__sample_with_invalid_nalu.mp4": (30, 26, "Invalid data found when processing input"),
}


def test_every_broken_file_of_the_folder_gets_its_verdict(shared_data: Path):
    assert {path.name for path in (shared_data / "broken").iterdir()} == {*REFUSED, *DAMAGED}
    for name, reason in REFUSED.items():
        path = shared_data / "broken" / name
        with unreadable(f"{path}: {reason}"):
            open_video(path)
    for name, (count, damaged, reason) in DAMAGED.items():
        path = shared_data / "broken" / name
        with open_video(path) as video:
            assert len(video.times_s) == count
        assert read(path, [0, 3], (16, 16)).shape == (2, 16, 16, 3)
        with unreadable(f"{path}: {reason}"):
            read(path, [damaged], (16, 16))


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a decoder opens a file, or if anything connects anywhere."""

    def reached(*args: object, **options: object) -> None:
        pytest.fail(f"a decoder or the network was reached: {args}")

    monkeypatch.setattr("av.open", reached)
    monkeypatch.setattr(socket.socket, "connect", reached)
    for reader in (PyAVReader, RGBFramesReader):
        monkeypatch.setattr(reader, "__init__", reached)


NOT_CONTAINERS = {
    "ffconcat": b"ffconcat version 1.0\nfile neighbour.mp4\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nneighbour.ts\n#EXT-X-ENDLIST\n",
    "hls after a byte-order mark": b"\xef\xbb\xbf#EXTM3U\n#EXTINF:10,\nneighbour.ts\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "text that starts like a transport stream": b"G" + b"a" * 187 + b"G" + b"a" * 800,
    "wave": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(64),
    "gif": b"GIF89a" + bytes(64),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "ogg": b"OggS" + bytes(64),
    "short": b"\x00",
    "zeros": bytes(2000),
}


PROTOCOLS = [
    "http://127.0.0.1:9/video.mp4",
    "rtsp://127.0.0.1:9/video",
    "http:video.mp4",
    "HTTP:/video.mp4",
    "file:video.mp4",
    "concat:a.mp4|b.mp4",
    "subfile,,start,0,end,9,,:video.mp4",
    "crypto+file:video.mp4",
    "pipe:0",
    "data:video/mp4;base64,AAAA",
    "tcp://127.0.0.1:9",
]


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("decoder", DECODERS)
def test_other_contents_urls_and_protocols_never_reach_a_decoder(tmp_path: Path, decoder: str):
    for number, content in enumerate(NOT_CONTAINERS.values()):
        for name in (f"{number}.mp4", f"{number}.m3u8"):
            (tmp_path / name).write_bytes(content)
            with unreadable(name, "not a video container"):
                open_video(tmp_path / name, decoder)
    for name in PROTOCOLS:
        for path, root in ((Path(name), None), (tmp_path / name, tmp_path)):
            with unreadable("not a file name but a URL or a protocol"):
                open_video(path, decoder, root)


@pytest.mark.usefixtures("no_decoder")
def test_paths_outside_the_root_and_special_files_never_reach_a_decoder(shared_data: Path, tmp_path: Path):
    video = (shared_data / "videos" / "decord__video_0.mov").resolve()
    root, outside = tmp_path / "root", tmp_path / "root2"
    for folder in (root, outside, root / "folder"):
        folder.mkdir()
    (outside / "video.mov").write_bytes(video.read_bytes())
    (root / "link.mov").symlink_to(video)
    (root / "linked_folder").symlink_to(outside)
    (root / "dangling.mov").symlink_to(root / "nothing")
    (root / "loop.mov").symlink_to(root / "loop.mov")
    os.mkfifo(root / "fifo.mp4")
    reasons = {
        "../root2/video.mov": "lies outside the data root",
        "folder/../../root2/video.mov": "lies outside the data root",
        "link.mov": "lies outside the data root",
        "linked_folder/video.mov": "lies outside the data root",
        str(video): "lies outside the data root",  # an absolute path replaces the root when joined to it
        "/dev/zero": "lies outside the data root",
        "fifo.mp4": "not a regular file",
        "folder": "not a regular file",
        "missing.mp4": "No such file or directory",
        "dangling.mov": "No such file or directory",
        "loop.mov": "link",
        "x" * 300 + ".mp4": "File name too long",
        "a\0b.mp4": "a path may not contain NUL or line breaks",
        "a\nb.mp4": "a path may not contain NUL or line breaks",
        "a\r\x1b[31mb.mp4": "a path may not contain NUL or line breaks",
    }
    for name, reason in reasons.items():
        with unreadable(reason):
            open_video(root / name, root=root)
    with unreadable("not a regular file"):
        open_video(Path("/dev/zero"))


def test_links_inside_the_root_and_odd_names_are_read(shared_data: Path, tmp_path: Path):
    content = (shared_data / "videos" / "decord__video_0.mov").read_bytes()
    for name in ("-_id (1) #&!.mov", "dance: the movie.mov", "été.mov", "color=red,size=3.mov"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "link.mov").unlink(missing_ok=True)
        (tmp_path / "link.mov").symlink_to(tmp_path / name)
        for path in (tmp_path / name, tmp_path / "link.mov"):
            assert len(read(path, [0, 1, 2], root=tmp_path)) == 3


def test_containers_are_detected_from_the_content(shared_data: Path, tmp_path: Path):
    for name, container in {
        "decord__video_0.mov": "mov",
        "media__bbb_176x144_128kbps_15fps_h263.3gp": "mov",
        "ExoPlayer__bear-vp9.webm": "matroska",
        "PaddleVideo__example.avi": "avi",
        "media__sample_h264.ts": "mpegts",
        "ExoPlayer__sample_h262_mpeg_audio.ps": "mpeg",
        "ExoPlayer__sample.flv": "flv",
    }.items():
        path = tmp_path / "video.txt"
        path.write_bytes((shared_data / "videos" / name).read_bytes())
        with open_video(path) as video:
            assert video.source.container == container
        assert len(read(path, [0, 2], (16, 16))) == 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_mutated_files_are_read_exactly_or_refused(tmp_path: Path, decoder: str):
    """`make stress` runs 3,000 mutations."""
    seeds = make_seeds(tmp_path)
    skip_without(decoder, seeds[0])
    assert verdict(seeds[0], decoder) == "read"
    results = Counter(in_killable_child(partial(judge_mutated, seeds, decoder, 7), range(50), HANG_S))
    assert set(results) == {"read", "refused"}
    assert min(results.values()) >= 5
