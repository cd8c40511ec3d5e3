"""Backends beside a plain decode: what one refuses or gets wrong is named."""

import csv
from collections.abc import Callable
from pathlib import Path

import benchmark
import numpy as np
import pytest
from PIL import Image

from vidtl.data.toy import encode_video
from vidtl.video import DECODERS, View
from vidtl.video.pyav import PyAVReader

RunMain = Callable[..., tuple[int, str, str]]


class OneFrameLate(PyAVReader):
    """A backend that has the frames of a file wrong."""

    def read(self, views, frame_size, pixel_format):
        late = [View((view.indices + 1) % len(self.times_s), view.box) for view in views]
        return super().read(late, frame_size, pixel_format)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """One video, one that nobody can read, and an image."""
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    encode_video(folder / "a.mp4", frames, fps=10)
    (folder / "b.mp4").write_bytes((folder / "a.mp4").read_bytes()[:300])
    Image.fromarray(frames[0]).save(folder / "c.png")
    return folder


@pytest.fixture
def check(run_main: RunMain, videos: Path, monkeypatch: pytest.MonkeyPatch) -> RunMain:
    for decoder in set(DECODERS) - {"pyav"}:  # installed or not
        monkeypatch.delitem(DECODERS, decoder)
    return lambda *options: run_main(benchmark.main, "conformance", videos, *options)


def test_refused_files_are_named_and_not_checked_further(
    check: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DECODERS, "other", PyAVReader)
    code, told, errors = check("--output", tmp_path / "table.csv")
    assert code == 0, errors
    lines = told.splitlines()
    assert [line.startswith("b.mp4: pyav: refused: ") for line in lines].count(True) == 1
    assert "b.mp4: other: not checked: PyAV refuses it" in lines
    assert {"c.png: pyav: not checked: it is an image", "c.png: other: not checked: it is an image"} <= set(lines)
    assert {"pyav: 1 exact, 1 refused, 1 not checked", "other: 2 not checked, 1 exact"} <= set(lines)
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["other"] for row in rows] == ["exact", "not checked: PyAV refuses it", "not checked: it is an image"]


def test_wrong_frames_are_named_and_end_with_a_code(check: RunMain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DECODERS, "late", OneFrameLate)
    code, told, errors = check()
    assert code == 1, errors
    assert "a.mp4: late: WRONG (" in told
