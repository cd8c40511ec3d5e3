"""Damaged and hostile files and paths: a documented verdict for each, never a crash, a hang or a wrong frame."""

import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.stress.decoding import HANG_S, in_silent_child, judge_mutated, make_seeds, verdict
from tests.video.conftest import read, skip_without, unreadable
from tests.video.test_made import make_video
from vidtl.video import DECODERS, UnreadableVideo, open_video
from vidtl.video.pyav import PyAVReader
from vidtl.video.rgb_frames import DECORD, TORCHCODEC, RGBFramesReader

pytestmark = pytest.mark.timeout(60)

REFUSED = {
    "zero_byte.mp4": "the file is empty",
    "jpeg_named.mp4": "no video stream: it begins as an image does",
    "ExoPlayer__sample_opus.mp4": "no video stream",
    "small__Mpeg4.mp4": "no video stream",
    "media__video_init.mp4": "no frames in the file itself, or encrypted ones: no size or pixel format",
    "mp4parse-rust__invalid_userdata.mp4": "no frames in the file itself",
    "mp4parse-rust__test_case_1185230.mp4": "no frames in the file itself",
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


NO_VIDEOS = {
    "ffconcat": b"ffconcat version 1.0\nfile neighbor.mp4\nfile http://127.0.0.1:PORT/a.mp4\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nneighbor.mp4\n#EXT-X-ENDLIST\n",
    "hls of a server": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:PORT/a.ts\n#EXT-X-ENDLIST\n",
    "hls after a byte-order mark": b"\xef\xbb\xbf#EXTM3U\n#EXTINF:10,\nneighbor.mp4\n",
    "hls after a tag of sound": b"ID3\x04\0\0\0\0\0\0#EXTM3U\n#EXTINF:10,\nneighbor.mp4\n#EXT-X-ENDLIST\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video PORT RTP/AVP 96\n",
    "dash": b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:PORT/</BaseURL></MPD>",
    "rtsp reference": b"[playlist]\nFile1=rtsp://127.0.0.1:PORT/a\n",
    "asf reference": b"[Reference]\nRef1=http://127.0.0.1:PORT/a.wmv\n",
    "subtitles": b"1\n00:00:00,000 --> 00:00:10,000\nneighbor.mp4\n",
    "index of subtitles": b"# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "text that starts like a transport stream": b"G" + b"a" * 187 + b"G" + b"a" * 800,
    "wave": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(64),
    "gif": b"GIF89a" + bytes(64),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "ogg": b"OggS" + bytes(64),
    "short": b"\x00",
    "zeros": bytes(2000),
}
NAMES = ("mp4", "m3u8", "sdp", "ffconcat", "wmv", "mxf", "gif", "h264", "mjpeg", "m4v", "y4m", "%d.jp2", "txt", "")


PROTOCOLS = (
    *("http://127.0.0.1:9/video.mp4", "rtsp://127.0.0.1:9/video", "tcp://127.0.0.1:9", "http:video.mp4", "HTTP:/a.mp4"),
    *("file:video.mp4", "crypto+file:video.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:video.mp4"),
    *("pipe:0", "data:video/mp4;base64,AAAA"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, bytes]]:
    """Provide a folder beside a pipe, whose opening would block, and the port of a server that nobody may call."""
    for library in (DECORD, TORCHCODEC):
        watched = library._replace(load=lambda: None, open=lambda *args: pytest.fail(f"a library was reached: {args}"))
        monkeypatch.setitem(DECODERS, library.name, partial(RGBFramesReader, watched))
    os.mkfifo(tmp_path / "neighbor.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield tmp_path, str(server.getsockname()[1]).encode()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_other_contents_open_no_socket_and_no_neighbor(place: tuple[Path, bytes], kind: str, decoder: str):
    folder, port = place
    content = NO_VIDEOS[kind].replace(b"PORT", port)
    reasons = set()
    for ending in NAMES:
        path = folder / f"a.{ending}".rstrip(".")
        path.write_bytes(content)
        with unreadable(path), path.open("rb") as file:
            try:
                open_video(path, decoder)
            except UnreadableVideo as error:
                reasons.add(error.reason)
            open_video(file)
    assert len(reasons) == 1  # whatever its name


def refer_to(movie: bytes, target: bytes) -> bytes:
    """Replace the data reference of a QuickTime file by an alias of another file, by its absolute path."""
    start = movie.index(b"dref") + 12
    path = struct.pack(">hh", 2, len(target)) + target + bytes(len(target) % 2)
    alias = bytes(10) + bytes(28) + bytes(12) + b"\x0bneighbor.mp4".ljust(64, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16) + path + struct.pack(">hh", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    changed = bytearray(movie[:start] + entry + movie[start + 12 :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = movie.rindex(kind, 0, start) - 4
        changed[at : at + 4] = struct.pack(">I", int.from_bytes(movie[at : at + 4]) + len(entry) - 12)
    return bytes(changed)


def test_data_references_to_other_files_are_not_followed(place: tuple[Path, bytes]):
    folder, port = place
    whole = make_video(folder / "whole.mov", "libx264")
    for target in (str(folder / "neighbor.mp4").encode(), b"http://127.0.0.1:" + port + b"/a.mp4"):
        (folder / "a.mov").write_bytes(refer_to(whole.read_bytes(), target))
        with unreadable("no frames in the file itself"):
            open_video(folder / "a.mov")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("decoder", DECODERS)
def test_urls_and_protocols_never_reach_a_decoder(tmp_path: Path, decoder: str):
    for name in PROTOCOLS:
        for path, root in ((Path(name), None), (tmp_path / name, tmp_path)):
            with unreadable("No such file or directory"):
                open_video(path, decoder, root)


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_names_that_are_image_patterns_never_reach_a_library(place: tuple[Path, bytes], decoder: str):
    """By their names, decord's FFmpeg opens `a0.dpx` in place of a file that begins with a long `free` box."""
    folder, _ = place
    make_video(folder / "made.mov", "libx264").rename(folder / "a%d.dpx")
    assert len(read(folder / "a%d.dpx", range(40))) == 40
    with unreadable("image patterns", "data.decoder pyav"):
        open_video(folder / "a%d.dpx", decoder)


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
    names = {
        # An absolute path replaces the root when joined to it.
        "lies outside the data root": (
            *("../root2/video.mov", "folder/../../root2/video.mov", "link.mov", "linked_folder/video.mov"),
            *(video, "/dev/zero"),
        ),
        "not a regular file": ("fifo.mp4", "folder"),
        "No such file or directory": ("missing.mp4", "dangling.mov"),
        "link": ("loop.mov",),
        "File name too long": ("x" * 300 + ".mp4",),
        "a path may not contain NUL or line breaks": ("a\0b.mp4", "a\nb.mp4", "a\r\x1b[31mb.mp4"),
    }
    for reason, bad in names.items():
        for name in bad:
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
    results = Counter(
        in_silent_child(partial(judge_mutated, seeds, decoder, 7, number), HANG_S) for number in range(50)
    )
    assert set(results) == {"read", "refused"}
    assert min(results.values()) >= 5
