"""The toy set is what it claims: a model that has learned it is at chance when it sees one frame, repeated."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment import REPOSITORY
from vidtl.data.toy import ToySettings, make_toy
from vidtl.runtime.progress import make_progress


@pytest.mark.timeout(600)
def test_a_trained_model_is_at_chance_on_a_single_frame(
    run_main: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    import eval as evaluation
    import train

    settings = ToySettings(videos_per_class_train=60, videos_per_class_val=40)
    make_toy(tmp_path / "toy", settings, make_progress(is_main_process=False))
    config = REPOSITORY / "configs/toy.yaml"
    options = ["--config", config, "--data.root", tmp_path / "toy", "--output_dir", tmp_path / "run"]
    options += ["--training.evaluate_every_epochs", "0"]
    code, _, errors = run_main(train.main, *options)
    assert code == 0, errors

    top1 = {}
    for single_frame, name in (("false", "val-center"), ("true", "val-center-single-frame")):
        options = ["--checkpoint", tmp_path / "run", "--evaluation.single_frame", single_frame]
        code, _, errors = run_main(evaluation.main, *options)
        assert code == 0, errors
        (metrics,) = (tmp_path / "run/evaluation").glob(f"step-*/{name}/metrics.json")
        top1[name] = json.loads(metrics.read_text())["metrics"]["top1"]
    assert top1["val-center"] > 0.8
    assert abs(top1["val-center-single-frame"] - 1 / 8) < 0.05
