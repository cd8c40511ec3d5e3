"""Every evaluation says what its figures come from, and none takes another's place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vidtl.config import ClipConfig, DataConfig, EvaluationConfig, ExperimentConfig
from vidtl.config.compare import settings_of
from vidtl.data.protocols import get_protocol
from vidtl.errors import UserError
from vidtl.evaluation.provenance import check_same_origin, folder_name, origin_record

CONFIG = ExperimentConfig()


def origin(config: ExperimentConfig = CONFIG, model: str = "ab" * 32, given: str = "runs/a", step: int | None = 8):
    settings = settings_of(config)
    return origin_record(Path(given), step, False, {"precision": "no", "model": model, "settings": settings})


def write(folder: Path, content: object) -> None:
    (folder / "metrics.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({}, "val-vivit_4x3"),
        ({"batch_size": 3, "strict": True, "protocol": "vivit_4x3"}, "val-vivit_4x3"),
        ({"single_frame": True}, "val-vivit_4x3-single-frame"),
        ({"fusion": "mean_logits"}, "val-vivit_4x3-mean-logits"),
        ({"max_videos": 10, "averaged_weights": False}, "val-vivit_4x3-first-10-plain-weights"),
    ],
)
def test_the_folder_names_each_choice_that_is_not_the_usual_one(choice, name):
    assert folder_name(replace(CONFIG, evaluation=EvaluationConfig(**choice)), get_protocol("vivit_4x3")) == name


@pytest.mark.parametrize(
    "again",
    [
        origin(),
        origin(given="/elsewhere/runs/a", step=None),
        origin(replace(CONFIG, data=DataConfig(manifest="none"), evaluation=EvaluationConfig(batch_size=3))),
    ],
)
def test_the_same_evaluation_may_be_repeated(tmp_path, again):
    check_same_origin(tmp_path / "not there", again)
    check_same_origin(tmp_path, again)
    write(tmp_path, origin())
    check_same_origin(tmp_path, again)


def test_a_setting_that_came_later_was_what_the_default_is(tmp_path):
    before = origin()
    del before["settings"]["clip.mean"]
    write(tmp_path, before)
    check_same_origin(tmp_path, origin())
    with pytest.raises(UserError, match=r"clip.mean \[0.5, 0.5, 0.5\], and here it is \[0.0, 0.0, 0.0\]"):
        check_same_origin(tmp_path, origin(replace(CONFIG, clip=ClipConfig(mean=(0.0, 0.0, 0.0)))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            origin(model="cd" * 32, given="runs/b", step=None),
            r"runs/b \((cd){6}\), and .* runs/a \(step 8, (ab){6}",
        ),
        (
            origin(replace(CONFIG, clip=ClipConfig(stride=3))),
            "clip.stride 3, and here it is 2; allowed: the same",
        ),
        (origin(replace(CONFIG, data=DataConfig(root="b"))), "data.root 'b', and here it is 'data/toy'"),
        ({"metrics": {}}, "does not say which model it is of; allowed: another --output_dir"),
        ([], "does not say which model it is of"),
    ],
)
def test_results_of_another_evaluation_are_refused(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(UserError, match=message) as refused:
        check_same_origin(tmp_path, origin())
    assert str(tmp_path) in str(refused.value)
