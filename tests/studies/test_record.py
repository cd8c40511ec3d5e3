"""Runs that only a table tells of are kept, or the table is left alone."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.studies.made_row import FIGURES, RUN, made_row
from vidtl.config import ExperimentConfig, TrainingConfig
from vidtl.errors import UserError
from vidtl.studies.record import RunKey, deciding_settings, read_recorded
from vidtl.studies.results import write_results
from vidtl.studies.runs import RunResult

ABOUT = {"metric": "top1", "judged_on": "val", "checkpoint": "last"}
CONFIGS = {
    "wide": ExperimentConfig(),
    "flat": replace(ExperimentConfig(), training=TrainingConfig(label_smoothing=0.25)),
}
PLANNED = {RunKey(row, seed): config for row, config in CONFIGS.items() for seed in (0, 1)}


def write_table(folder: Path, runs: dict[str, dict[int, RunResult]]) -> Path:
    rows = [made_row(runs[name], name, config) for name, config in CONFIGS.items()]
    return write_results(rows, ABOUT, folder)[0]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    on_gpu = replace(RUN, device="H100", precision="bf16", figures=replace(FIGURES, on_gpu=True))
    return write_table(tmp_path, {"wide": {0: RUN, 1: on_gpu}, "flat": {1: replace(RUN, interval=None, figures=None)}})


def test_what_was_written_comes_back_but_for_times_of_a_cpu(table: Path) -> None:
    recorded = read_recorded(table, ABOUT, PLANNED, set())
    assert recorded == {
        ("wide", 0): replace(RUN, figures=replace(FIGURES, clips_per_s=None)),
        ("wide", 1): replace(RUN, device="H100", precision="bf16", figures=replace(FIGURES, on_gpu=True)),
        ("flat", 1): replace(RUN, interval=None, figures=None),
    }
    again = write_table(
        table.parent / "again", {row: {s: r for (n, s), r in recorded.items() if n == row} for row in CONFIGS}
    )
    assert again.read_bytes() == table.read_bytes()


def test_runs_at_hand_tell_for_themselves_whatever_the_table_is(table: Path) -> None:
    assert set(read_recorded(table, ABOUT, PLANNED, {RunKey("wide", 1)})) == {("wide", 0), ("flat", 1)}
    assert read_recorded(table, ABOUT | {"metric": "mAP"}, {}, set(PLANNED)) == {}
    assert read_recorded(table.with_name("none.json"), ABOUT, PLANNED, set()) == {}


def change(table: Path, *keys: str, value: object) -> None:
    content: Any = json.loads(table.read_text())
    place = content
    for key in keys[:-1]:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[keys[-1]] = value
    table.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["metric"], "mAP", "is of another study: metric is 'mAP' there and 'top1' here"),
        (["checkpoint"], "best", "is of another study: checkpoint is 'best' there and 'last' here"),
        (["rows", "0", "name"], "tall", "has a run of 'tall' with seed 0, which the study has not"),
        (["rows", "1", "runs"], {"7": asdict(RUN)}, "has a run of 'flat' with seed 7, which the study has not"),
        (["settings", "clip.stride"], 3, "'wide' was run with clip.stride 3, which is 2 now"),
        (["rows", "1", "settings"], {}, "'flat' was run with training.label_smoothing 0.0, which is 0.25 now"),
        (["settings", "data.eval_split"], "train", "'wide' was run with data.eval_split 'train', which is 'val' now"),
        (["settings", "evaluation.max_videos"], 9, "'wide' was run with evaluation.max_videos 9, which is 0 now"),
        (["settings"], "lost", "cannot be read, or is of another version"),
        (["rows", "0", "runs", "0"], {"value": 0.5}, "cannot be read, or is of another version"),
    ],
)
def test_a_table_whose_runs_would_be_lost_is_refused(table: Path, keys: list[str], value: object, message: str) -> None:
    change(table, *keys, value=value)
    with pytest.raises(UserError, match="move the file away, or give another --results_dir") as refused:
        read_recorded(table, ABOUT, PLANNED, set())
    assert str(table) in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"rows": 3}', '{"rows": [{"name": "wide", "values": {"0": 0.5}}]}']
)
def test_what_is_no_table_or_an_older_one_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(UserError, match="cannot be read, or is of another version"):
        read_recorded(file, ABOUT, PLANNED, set())


def test_seed_precision_and_what_leaves_a_run_as_it_is_may_differ(table: Path) -> None:
    settings = deciding_settings(ExperimentConfig())
    assert {"training.batch_size", "data.train_split", "data.eval_split", "evaluation.protocol"} <= set(settings)
    assert not {"training.seed", "training.precision", "data.root", "training.compile"} & set(settings)
    for key in list(settings)[::20]:
        content = json.loads(table.read_text())
        del content["settings"][key]  # a key that came into being later
        table.write_text(json.dumps(content))
    assert len(read_recorded(table, ABOUT, PLANNED, set())) == 3
