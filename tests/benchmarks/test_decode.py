"""Reading clips beside other libraries."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from benchmarks.decode import CONTENDERS, LIMIT, FileTimes, main
from tests.environment import RunMain
from vidtl.video.encoder import encode_video


def test_every_installed_library_reads_or_refuses_the_file(run_main: RunMain, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (80, 48, 64, 3), dtype=np.uint8)
    encode_video(tmp_path / "a.mp4", frames, fps=10)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    options = ("--clips", "1", "--rounds", "2", "--output", tmp_path / "speed.json")
    output, _ = run_main(main, tmp_path / "b.mp4", tmp_path / "a.mp4", *options)
    assert "a.mp4" in output
    report = json.loads((tmp_path / "speed.json").read_text())
    (file,), (left_out,) = report["files"], report["left_out"]
    assert str(tmp_path / "b.mp4") in left_out
    installed = {name for name, (package, _) in CONTENDERS.items() if importlib.util.find_spec(package)}
    assert file["seconds"].keys() | file["refused"].keys() == installed
    assert {"planar", "planar, no manifest", "RGB", LIMIT} <= file["seconds"].keys()
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in file["seconds"].values())


def test_speeds_are_medians_of_ratios_within_a_round() -> None:
    times = FileTimes("a.mp4", {"fast": [1.0, 2.0, 4.0], LIMIT: [2.0, 2.0, 12.0]}, {"other": "error"})
    assert times.speed("fast") == 2.0
    assert times.speed("other") is None
