"""Windows of real files: the same pixels as clips of their own, each frame decoded once, all of the file covered."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from tests.refusals import refused
from tests.video.conftest import NUM_FRAMES
from vidtl.annotations.records import ClassNames
from vidtl.annotations.video_files import find_videos, records_of_files
from vidtl.config import ClipConfig, DataConfig
from vidtl.data import dataset as dataset_module
from vidtl.data.dataset import ViewDataset
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.data.windows import Hop, centered_windows, sliding_windows
from vidtl.video import open_video
from vidtl.video.clip import ClipBuffer

CLIP = ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=36)
DATA = DataConfig(num_workers=0, manifest="none")
CENTER = get_protocol("center")


def records_of(*paths):
    return records_of_files(find_videos(paths).videos, ClassNames(("any",)), multi_label=False, frame_rate=None)


@pytest.mark.parametrize("target_fps", [0, 10])
@pytest.mark.parametrize("name", [name for name, count in NUM_FRAMES.items() if 32 < count < 700])
def test_windows_of_one_pass_are_clips_of_their_own(shared_data, name, target_fps):
    clip = replace(CLIP, target_fps=target_fps)
    windows = sliding_windows(records_of(shared_data / "videos" / name), clip, DATA, Hop(frames=5))
    dataset = ViewDataset(windows.records, CENTER, clip, DATA)
    together = dataset.__getitems__(list(range(len(windows.records))))
    starts = [int(video.frames[0, 0]) for video in together]
    assert starts == sorted(set(starts))
    assert all(starts[i] == 5 * i for i in range(len(starts) - 1)) or target_fps
    ends_s = windows.spans_s[:, 1]
    assert ends_s[-1] == pytest.approx(together[0].duration_s + windows.spans_s[0, 0])
    assert (windows.spans_s[1:, 0] <= ends_s[:-1]).all(), "every frame is in a window"
    with open_video(shared_data / "videos" / name) as other:
        for video, (start_s, end_s) in zip(together[::4], windows.spans_s[::4], strict=True):
            frames = video.frames[0]
            assert start_s == other.times_s[frames[0]]
            behind = np.append(other.times_s, ends_s[-1])
            assert end_s == behind[frames[-1] + CLIP.stride] or target_fps or len(starts) == 1
            assert torch.equal(video.pixels, dataset.__getitems__([video.index])[0].pixels)


def test_each_frame_is_decoded_once_and_by_one_opening(shared_data, monkeypatch):
    numbers, opened = [], []
    put, open_record = ClipBuffer.put, dataset_module.open_record
    monkeypatch.setattr(ClipBuffer, "put", lambda self, number, p: (numbers.append(number), put(self, number, p)))
    monkeypatch.setattr(dataset_module, "open_record", lambda *given: (opened.append(given), open_record(*given))[1])
    windows = sliding_windows(records_of(shared_data / "videos/mmaction2__test.mp4"), CLIP, DATA, Hop(frames=8))
    dataset = ViewDataset(windows.records, CENTER, CLIP, DATA)
    count = len(windows.records)
    for first in range(0, count, 10):
        dataset.__getitems__(list(range(first, min(first + 10, count))))
    # Where a batch begins, the frames that it shares with the one before are decoded again.
    assert len(opened) == 1
    assert len(numbers) <= len(set(numbers)) + 8 * (count // 10)


def test_a_file_that_cannot_be_sought_is_decoded_once(shared_data, monkeypatch):
    windows = sliding_windows(records_of(shared_data / "videos/PaddleVideo__example.avi"), CLIP, DATA, Hop(frames=8))
    expected = ViewDataset(windows.records, CENTER, CLIP, DATA).__getitems__(list(range(len(windows.records))))
    monkeypatch.setattr("vidtl.video.source._KEPT_BYTES", 0)
    dataset = ViewDataset(windows.records, CENTER, CLIP, DATA)
    numbers = []
    put = ClipBuffer.put
    monkeypatch.setattr(ClipBuffer, "put", lambda self, number, p: (numbers.append(number), put(self, number, p)))
    for video in expected[::2]:  # another worker reads those between
        (again,) = dataset.__getitems__([video.index])
        assert torch.equal(video.pixels, again.pixels)
    assert not dataset._file[1].seeks
    assert len(numbers) == len(set(numbers))


def test_loaders_give_the_same_windows_for_any_number_of_workers(shared_data):
    records = records_of(*(shared_data / "videos" / name for name in ("mmaction2__test.mp4", "ffmpeg-python__in.mp4")))
    found = []
    for workers in (1, 2):
        data = replace(DATA, num_workers=workers)
        windows = sliding_windows(records, CLIP, data, Hop(seconds=0.3))
        assert windows.owners.tolist() == sorted(windows.owners)
        found.append(list(EvalLoader(windows.records, CENTER, CLIP, data)))
    for one, two in zip(*found, strict=True):
        assert one.index == two.index
        assert torch.equal(one.pixels, two.pixels)


def test_a_short_file_is_one_window_and_a_broken_one_a_reason(shared_data, tmp_path):
    short, broken = tmp_path / "short.mp4", tmp_path / "broken.mp4"
    with av.open(str(short), "w") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width = stream.height = 64
        for value in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 80 * value, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    broken.write_bytes(short.read_bytes()[:200])
    records = records_of(short, broken)
    windows = sliding_windows(records, CLIP, DATA, Hop(frames=8))
    assert windows.spans_s.tolist() == [[0, pytest.approx(0.12)], [0, 0]]
    assert windows.failures.keys() == {1}
    good, bad = EvalLoader(windows.records, CENTER, CLIP, DATA, failures=windows.failures)
    assert good.frames.tolist() == [[0, 2, 2, 2, 2, 2, 2, 2]] or good.frames.max() <= 2
    assert bad.failure.reason == windows.failures[1]
    centered = centered_windows(records, CLIP, DATA, lambda index, duration_s: np.arange(5) / 5 * duration_s)
    assert centered.owners.tolist() == [0] * 5 + [1] * 5
    assert centered.failures.keys() == {5, 6, 7, 8, 9}


def test_centered_windows_show_the_frame_of_each_time(shared_data):
    path = shared_data / "videos/mmaction2__test.mp4"
    with open_video(path) as video:
        times_s = video.times_s
    asked = np.array([0, 2.0, 5.0, times_s[-1] + 1])
    windows = centered_windows(records_of(path), CLIP, DATA, lambda index, duration_s: asked)
    views = list(EvalLoader(windows.records, CENTER, CLIP, DATA))
    last = len(times_s) - 16
    expected = [0, *(int(np.searchsorted(times_s, t + 1e-6, side="right")) - 1 - 8 for t in asked[1:3]), last]
    assert [int(view.frames[0, 0]) for view in views] == expected


@pytest.mark.parametrize("text", ["", "8", "0 frames", "0.0 s", "-1 s", "8 frame rates", "nan s"])
def test_hops_are_frames_or_seconds(text):
    for given, hop in (("8 frames", Hop(8, 0)), ("1 frame", Hop(1)), ("0.5s", Hop(0, 0.5))):
        assert Hop.parse(given, "--hop") == hop
    with refused("--hop", repr(text)):
        Hop.parse(text, "--hop")
