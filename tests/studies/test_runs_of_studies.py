"""What a study reads from the folder of a run."""

import json
from pathlib import Path

import pytest

from vidtl.errors import UserError
from vidtl.studies.runs import read_run, read_run_figures


def write_run(folder: Path, waits: list[float], device_bytes: int | None, attempts: list[dict[str, object]]) -> None:
    lines: list[dict[str, object]] = [
        {"step": 10 * (n + 1), "loss": 1.0, "clips_per_s": 1 / (1 + wait), "data_wait_share": wait}
        for n, wait in enumerate(waits)
    ]
    lines.insert(2, {"step": 20, "split": "val", "top1": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"hardware": {"device_memory_bytes": device_bytes}, "attempts": attempts}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_medians_without_the_first_line_and_the_peak_of_all_attempts(tmp_path: Path) -> None:
    attempts = [{"peak_memory_bytes": {"gpu": 5, "process": size}} for size in (7, 9, 8)]
    attempts += [{"status": "killed", "peak_memory_bytes": None}, {"status": "of an older version"}]
    write_run(tmp_path, [0.9, 0.1, 0.3, 0.2], None, attempts)
    figures = read_run_figures(tmp_path)
    assert figures is not None
    assert figures.data_wait_share == 0.2
    assert figures.clips_per_s == pytest.approx(1 / 1.2)
    assert (figures.peak_memory_bytes, figures.on_gpu) == (9, False)
    write_run(tmp_path, [0.9, 0.1], 80 << 30, attempts)
    figures = read_run_figures(tmp_path)
    assert figures is not None
    assert (figures.peak_memory_bytes, figures.on_gpu) == (5, True)


def test_a_run_that_has_hardly_begun_has_no_figures(tmp_path: Path) -> None:
    assert read_run_figures(tmp_path) is None
    write_run(tmp_path, [0.9], None, [{}])
    assert read_run_figures(tmp_path) is None
    write_run(tmp_path, [0.9, 0.2], None, [{}])
    figures = read_run_figures(tmp_path)
    assert figures is not None
    assert figures.peak_memory_bytes is None


@pytest.mark.parametrize(("device_bytes", "device"), [(None, "CPU"), (80 << 30, "NVIDIA H100")])
def test_a_judged_run_tells_where_and_how_it_ran(tmp_path: Path, device_bytes: int | None, device: str) -> None:
    hardware = {"device": "NVIDIA H100", "device_memory_bytes": device_bytes, "precision": "bf16"}
    attempts = [{"ended": None}, {"ended": "2026-11-21T23:59:59+00:00"}]
    summary = {"hardware": hardware, "attempts": attempts, "versions": {"torch": "2.11.0"}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    judged = tmp_path / "metrics.json"
    interval = {"low": 0.1, "high": 0.9}
    judged.write_text(json.dumps({"metrics": {"top1": 0.5, "mAP": None}, "intervals": {"top1": interval}}))
    run = read_run(tmp_path, judged, "top1")
    assert (run.value, run.interval, run.figures) == (0.5, interval, None)
    assert (run.device, run.precision, run.torch, run.finished) == (device, "bf16", "2.11.0", "2026-11-21")
    with pytest.raises(UserError, match="has no value for mAP"):
        read_run(tmp_path, judged, "mAP")
    with pytest.raises(UserError, match="has no metric 'loss'; allowed: top1, mAP"):
        read_run(tmp_path, judged, "loss")
