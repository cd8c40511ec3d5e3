"""Every evaluation names the model and settings of its scores, and none takes another's place."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from accelerate import Accelerator

from tests.evaluation.tiny_evaluation import CONFIG, make_records
from tests.refusals import refused
from vidtl.annotations.records import StringColumn
from vidtl.config import ClipConfig, DataConfig, EvaluationConfig
from vidtl.data.protocols import get_protocol
from vidtl.evaluation.provenance import check_same_origin, evaluation_key, folder_name, origin_record
from vidtl.training.checkpoint import Checkpoint

RECORDS, CENTER = make_records(11, False), get_protocol("center")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_key_holds_everything_that_decides_a_score(model):
    key = partial(evaluation_key, Checkpoint(model), accelerator=Accelerator(cpu=True))
    before = key(RECORDS, CONFIG, CENTER)
    assert key(RECORDS, replace(CONFIG, data=DataConfig(num_workers=0, read_timeout_s=9)), CENTER) == before
    moved = replace(RECORDS, paths=StringColumn.from_strings(f"other/{i}.mp4" for i in range(11)))
    relabeled = replace(RECORDS, label_classes=RECORDS.label_classes[::-1].copy())
    configs = (
        replace(CONFIG, clip=ClipConfig(num_frames=4)),
        replace(CONFIG, data=DataConfig(root="elsewhere")),
        replace(CONFIG, evaluation=EvaluationConfig(batch_size=3)),
    )
    others = [key(records, CONFIG, CENTER) for records in (moved, relabeled, RECORDS.select(range(10)))]
    others += [key(RECORDS, config, CENTER) for config in configs]
    others.append(key(RECORDS, CONFIG, replace(CENTER, fusion="max")))
    (model / "model.safetensors").write_bytes(b"other weights")
    others.append(key(RECORDS, CONFIG, CENTER))
    assert len({json.dumps(each, sort_keys=True) for each in (before, *others)}) == 9


def test_the_folder_names_each_choice_that_is_not_the_default():
    for choice, name in [
        ({"batch_size": 3, "protocol": "vivit_4x3"}, "val-center"),
        ({"fusion": "mean_logits"}, "val-center-mean-logits"),
        ({"max_videos": 10, "averaged_weights": False}, "val-center-first-10-plain-weights"),
    ]:
        assert folder_name(replace(CONFIG, evaluation=EvaluationConfig(**choice)), CENTER) == name


def test_results_of_another_evaluation_are_refused(model, tmp_path, monkeypatch):
    def origin(config=CONFIG, given="runs/a", step=8):
        key = evaluation_key(Checkpoint(model), RECORDS, config, CENTER, Accelerator(cpu=True))
        return origin_record(Path(given), step, False, key, config)

    mine = origin()
    check_same_origin(tmp_path, mine)  # no results yet
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(mine))
    check_same_origin(tmp_path, mine)
    check_same_origin(tmp_path, origin(given="/elsewhere/runs/a", step=None))
    harmless = replace(CONFIG, data=DataConfig(manifest="none"), evaluation=EvaluationConfig(batch_size=3))
    check_same_origin(tmp_path, origin(harmless))
    with refused(tmp_path, "clip.stride", 1, 3):
        check_same_origin(tmp_path, origin(replace(CONFIG, clip=replace(CONFIG.clip, stride=3))))
    monkeypatch.chdir(tmp_path)
    Path("data/toy").mkdir(parents=True)
    absolute = replace(CONFIG, data=DataConfig(root=str(Path("data/toy").absolute())))
    check_same_origin(tmp_path, origin(absolute))
    keys = [evaluation_key(Checkpoint(model), RECORDS, c, CENTER, Accelerator(cpu=True)) for c in (CONFIG, absolute)]
    assert keys[0] == keys[1]
    with refused("data.root", "'b'", "'data/toy'"):
        check_same_origin(tmp_path, origin(replace(CONFIG, data=DataConfig(root="b"))))
    (model / "model.safetensors").write_bytes(b"other weights")
    with refused(tmp_path, "runs/a (step 8", "runs/b (step None"):
        check_same_origin(tmp_path, origin(given="runs/b", step=None))
    for content in ('{"metrics": {}}', "[]"):
        file.write_text(content)
        with refused(file, "--output_dir"):
            check_same_origin(tmp_path, mine)
