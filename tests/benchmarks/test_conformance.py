"""Decoders beside a plain decode: refused files and wrong frames are reported."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.conformance import main
from tests.environment import RunMain
from vidtl.video import DECODERS, View
from vidtl.video.encoder import encode_video
from vidtl.video.pyav import PyAVReader


class OneFrameLate(PyAVReader):
    def read(self, views, frame_size, pixel_format):
        late = [View((view.indices + 1) % len(self.times_s), view.box) for view in views]
        return super().read(late, frame_size, pixel_format)


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A video, an unreadable one and an image; PyAV is the only decoder."""
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    encode_video(folder / "a.mp4", frames, fps=10)
    (folder / "b.mp4").write_bytes((folder / "a.mp4").read_bytes()[:300])
    Image.fromarray(frames[0]).save(folder / "c.png")
    for decoder in set(DECODERS) - {"pyav"}:
        monkeypatch.delitem(DECODERS, decoder)
    return folder


def test_refused_files(run_main: RunMain, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "other", PyAVReader)
    lines = run_main(main, videos, "--output", tmp_path / "table.csv")[0].splitlines()
    assert [line.startswith("b.mp4: pyav: refused: ") for line in lines].count(True) == 1
    assert {"pyav: 1 exact, 1 refused, 1 not checked", "other: 2 not checked, 1 exact"} <= set(lines)
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["other"].partition(":")[0] for row in rows] == ["exact", "not checked", "not checked"]


class Failing(PyAVReader):
    def read(self, views, frame_size, pixel_format):
        raise MemoryError(f"of {views[0].box[2:]} as {tuple(frame_size)}")


def test_a_failure_of_one_decoder_keeps_the_results_of_others(run_main: RunMain, videos: Path, monkeypatch) -> None:
    monkeypatch.setitem(DECODERS, "failing", Failing)
    output, _ = run_main(main, videos, code=1)
    assert "a.mp4: failing: failed: MemoryError: of (24, 32) as (24, 32)" in output  # no frame is resized
    assert "pyav: 1 exact, 1 refused, 1 not checked" in output


def test_wrong_frames_end_with_a_code(run_main: RunMain, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "late", OneFrameLate)
    output, _ = run_main(main, videos, code=1)
    assert "a.mp4: late: WRONG (" in output
