"""Damaged and hostile files and paths: a documented verdict for each, and never a crash, a hang or a wrong frame."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from vidtl.video import Box, UnreadableVideo, View, open_video
from vidtl.video.pyav import PyAVReader
from vidtl.video.rgb_frames import RGBFramesReader
from vidtl.video.safety import sniff_container

pytestmark = pytest.mark.timeout(60)

DECODERS = ("pyav", "decord", "torchcodec")

# What opening says, or (number of frames, first frame that cannot be read, what reading it says).
VERDICTS: dict[str, str | tuple[int, int, str]] = {
    "zero_byte.mp4": "the file is empty",
    "jpeg_named.mp4": "not a video container",
    "ExoPlayer__sample_opus.mp4": "no video stream",
    "small__Mpeg4.mp4": "no video stream",
    "media__video_init.mp4": "no frames: the header gives no picture size",
    "mp4parse-rust__invalid_userdata.mp4": "no frames: the header gives no picture size",
    "mp4parse-rust__test_case_1185230.mp4": "no frames: the header gives no picture size",
    "derived_truncated60_mmaction2_test.mp4": "Invalid data found when processing input",
    "derived_truncated50_paddle_example.avi": (67, 66, "frame 66 is damaged"),
    "decord__corrupted.mp4": (50, 49, "Invalid data found when processing input"),
    "media__sample_with_invalid_nalu.mp4": (30, 26, "Invalid data found when processing input"),
}


def read_frames(path: Path, indices: list[int]) -> np.ndarray:
    with open_video(path) as video:
        return video.read([View(np.array(indices), Box(0, 0, video.height, video.width))], (16, 16), "rgb")


def test_every_broken_file_of_the_folder_is_tested(shared_data: Path):
    assert {path.name for path in (shared_data / "broken").iterdir()} == set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_broken_files_get_their_verdict(shared_data: Path, name: str):
    path = shared_data / "broken" / name
    verdict = VERDICTS[name]
    if isinstance(verdict, str):
        with pytest.raises(UnreadableVideo) as caught:
            open_video(path)
        assert str(caught.value) == f"{path}: {verdict}"
        return
    count, damaged, reason = verdict
    with open_video(path) as video:
        assert len(video.times_s) == count
    assert read_frames(path, [0, 3]).shape == (1, 2, 16, 16, 3)
    with pytest.raises(UnreadableVideo) as caught:
        read_frames(path, [damaged])
    assert str(caught.value) == f"{path}: {reason}"


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if any decoder is given a file, or if anything connects anywhere."""

    def reached(*args: object, **options: object) -> None:
        pytest.fail(f"a decoder or the network was reached: {args}")

    monkeypatch.setattr("av.open", reached)
    monkeypatch.setattr(socket.socket, "connect", reached)
    for reader in (PyAVReader, RGBFramesReader):
        monkeypatch.setattr(reader, "__init__", reached)


NOT_CONTAINERS = {
    "ffconcat": b"ffconcat version 1.0\nfile neighbour.mp4\n",
    "ffconcat absolute": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nneighbour.ts\n#EXT-X-ENDLIST\n",
    "hls http": b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
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


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", NOT_CONTAINERS)
def test_what_is_no_container_never_reaches_a_decoder(tmp_path: Path, kind: str, decoder: str):
    for name in ("video.mp4", "video.m3u8"):
        path = tmp_path / name
        path.write_bytes(NOT_CONTAINERS[kind])
        with pytest.raises(UnreadableVideo, match=f"{name}: not a video container$"):
            open_video(path, decoder)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:9/video.mp4",
        "https://127.0.0.1:9/video.mp4",
        "rtsp://127.0.0.1:9/video",
        "http:video.mp4",
        "HTTP:/video.mp4",
        "file:video.mp4",
        "file:///etc/passwd",
        "concat:a.mp4|b.mp4",
        "subfile,,start,0,end,9,,:video.mp4",
        "crypto+file:video.mp4",
        "pipe:0",
        "data:video/mp4;base64,AAAA",
        "tcp://127.0.0.1:9",
    ],
)
def test_urls_and_protocols_never_reach_a_decoder(tmp_path: Path, name: str, decoder: str):
    for path, root in ((Path(name), None), (tmp_path / name, tmp_path)):
        with pytest.raises(UnreadableVideo, match=r"not a file name but a URL or a protocol$"):
            open_video(path, decoder, root)


@pytest.mark.usefixtures("no_decoder")
def test_paths_that_are_no_plain_file_inside_the_root_never_reach_a_decoder(shared_data: Path, tmp_path: Path):
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
    refused = {
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
        "loop.mov": "(?i)symbolic links|symlink loop",
        "x" * 300 + ".mp4": "File name too long",
        "a\0b.mp4": "a path may not contain NUL or line breaks",
        "a\nb.mp4": "a path may not contain NUL or line breaks",
        "a\r\x1b[31mb.mp4": "a path may not contain NUL or line breaks",
    }
    for name, reason in refused.items():
        with pytest.raises(UnreadableVideo, match=reason) as caught:
            open_video(root / name, root=root)
        assert str(caught.value).isprintable(), name
    with pytest.raises(UnreadableVideo, match="not a regular file"):
        open_video(Path("/dev/zero"))


def test_links_inside_the_root_and_odd_names_are_read(shared_data: Path, tmp_path: Path):
    content = (shared_data / "videos" / "decord__video_0.mov").read_bytes()
    for name in ("-_id (1) #&!.mov", "dance: the movie.mov", "été.mov", "color=red,size=3.mov"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "link.mov").unlink(missing_ok=True)
        (tmp_path / "link.mov").symlink_to(tmp_path / name)
        for path in (tmp_path / name, tmp_path / "link.mov"):
            with open_video(path, root=tmp_path) as video:
                assert len(video.times_s) == 3


def test_a_container_inside_another_name_is_read_as_what_it_is(shared_data: Path, tmp_path: Path):
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
        assert sniff_container(path) == container
        with open_video(path) as video:
            assert len(video.times_s) >= 3
