"""Windows of generated videos read in two ways."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import windows
from tests.environment import RunMain
from vidtl.data import dataset
from vidtl.video import Box, View, open_video
from vidtl.video.clip import ClipBuffer


def test_videos_repeat_their_pictures_with_key_frames_at_equal_distances(tmp_path: Path) -> None:
    windows.write_video(tmp_path / "a.mp4", 24, 6, repeats=3)
    with open_video(tmp_path / "a.mp4") as video:
        assert np.diff(video.times_s).round(6).tolist() == [1 / windows.FPS] * 71
        view = View(np.arange(72), Box(0, 0, video.height, video.width))
        frames = video.read([view], (60, 80), "rgb")[0].reshape(3, 24, -1)
    assert (frames[1:] == frames[0]).all()
    assert not (frames[0, 1:] == frames[0, :-1]).all(axis=-1).any()


def test_a_pass_decodes_less_than_seeks_and_both_open_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, decoded = [], []
    make, put = dataset.open_record, ClipBuffer.put
    monkeypatch.setattr(dataset, "open_record", lambda *options: (opened.append(options), make(*options))[1])
    monkeypatch.setattr(ClipBuffer, "put", lambda *options: (decoded.append(options), put(*options))[1])
    windows.write_video(tmp_path / "a.mp4", 200, 12, repeats=1)
    counts = {}
    for way in ("pass", "seek"):
        windows.read([tmp_path / "a.mp4"], 8, way, 0)
        counts[way] = len(decoded)
        assert len(opened) == 1
        opened.clear(), decoded.clear()
    assert counts["pass"] < 0.8 * counts["seek"]  # in passes of 4 windows


def test_distinct_timesteps_cost_their_share() -> None:
    costs = windows.time_timesteps(75, 1, side=32)
    shared, whole = costs["multiply_adds"][1], costs["multiply_adds"][0]
    assert 44 / 128 < shared / whole < 0.5  # the temporal encoder sees all


def test_a_report_has_all_comparisons(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "time_timesteps", lambda *_: {})
    options = ("--minutes", "1", "--windows", "24", "--rounds", "1", "--output", tmp_path / "windows.json")
    output, _ = run_main(windows.main, *options)
    report = json.loads((tmp_path / "windows.json").read_text())
    assert [file["key_frames"] for file in report["files"]] == [12, 60, 250]
    for file in report["files"]:
        assert file["long"][0] > 0
        assert all(file[f"{workers}"][0].keys() == {"pass", "seek"} for workers in (0, 1, 2))
    assert "seek" in output
