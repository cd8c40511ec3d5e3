"""The rehearsal of the GPU kit: real trainings that are killed, resumed and sharded, and measurements, in small."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import SECTIONS, main
from benchmarks.gpu_training import Kit
from tests.environment import REPOSITORY, RunMain


def broken(kit: Kit) -> Iterator[dict[str, Any]]:
    yield {"item": "first", "result": "done"}
    raise ValueError(f"no file {kit.folder}/clip.mp4\nand more")


def test_sections_run_alone_and_a_failing_one_is_recorded(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECTIONS, "broken", broken)
    names = ["broken", "training", "fsdp", "data", "models", "attention"]
    options = ["--small", "--sections", ",".join(names), "--output", tmp_path / "gpu.json"]
    output, _ = run_main(main, *options, code=1)
    text = (tmp_path / "gpu.json").read_text()
    report = json.loads(text)
    assert [name for name in names if report["sections"][name]["failed"]] == ["broken"]
    assert report["sections"]["broken"]["error"] == "ValueError: no file .../clip.mp4"
    assert str(REPOSITORY) not in text + output
    rows = {name: {row["item"]: row for row in report["sections"][name]["rows"]} for name in names}
    assert [item for name in names for item, row in rows[name].items() if row["on"] != "not run on a GPU"] == []
    resumed = rows["training"]["bf16, killed and resumed"]
    assert (resumed["result"], resumed["from step"]) == ("bitwise equal", 4)
    assert rows["training"]["fp16, killed and resumed"]["result"] == "not run: fp16 needs a GPU"
    assert [row["form"] for row in rows["fsdp"].values()] == ["NO", "FSDP"]
    assert all(row["clips/s"] > 0 for row in rows["data"].values())
    assert {"factorized encoder", "8 tokens after block 0", "16 tokens after block 0"} < rows["models"].keys()
    done = [item for item, row in rows["attention"].items() if "TFLOP/s" in row]
    assert {item.rpartition(", ")[2] for item in done} == {"flash", "math"}
    assert len(done) == 2 * 5


def test_an_unknown_section_is_refused(run_main: RunMain) -> None:
    run_main(main, "--sections", "models,atention", refused=("--sections", "atention", "attention"))
