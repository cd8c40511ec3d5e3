"""The comparison of one open for all views with one open per view runs, and compares the same pixels."""

import json
from pathlib import Path

import pytest

from vidtl.benchmark.evaluation_views import time_views
from vidtl.config import ClipConfig
from vidtl.data.protocols import get_protocol

CLIP = ClipConfig(num_frames=4, stride=2, frame_size=(32, 32), short_side=36)


def test_all_ways_are_timed_in_every_round(shared_data: Path) -> None:
    times = time_views(shared_data / "videos/PaddleVideo__example.avi", "pyav", get_protocol("vivit_4x3"), CLIP, 2)
    assert times.num_views == 12
    assert times.num_frames == 131
    for seconds in (times.together, times.apart, times.from_start):
        assert len(seconds) == 2
        assert min(seconds) > 0
    assert times.clips_per_s([2.0, 4.0, 3.0]) == 4.0


def test_the_tool_prints_and_writes(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import benchmark

    video = shared_data / "videos/PaddleVideo__example.avi"
    arguments = ["views", video, "--one_crop", "--rounds", "1", "--num_frames", "4", "--output", tmp_path / "r.json"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, arguments)])
    benchmark.main()
    assert "PaddleVideo__example.avi: 131 frames, 4 views:" in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "r.json").read_text())
    assert record["num_views"] == 4
    assert len(record["together"]) == 1
