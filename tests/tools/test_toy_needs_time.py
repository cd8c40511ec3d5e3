"""The toy set is what it claims: a model that has learned it is at chance when it sees one frame, repeated."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.environment import REPOSITORY
from vidtl.data import dataset
from vidtl.data.toy import ToySettings, make_toy
from vidtl.runtime.progress import make_progress


@pytest.mark.timeout(600)
def test_a_trained_model_is_at_chance_on_a_single_frame(
    run_main: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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

    def top1(name: str) -> float:
        code, _, errors = run_main(evaluation.main, "--checkpoint", tmp_path / "run", "--output_dir", tmp_path / name)
        assert code == 0, errors
        return float(json.loads((tmp_path / name / "val-center/metrics.json").read_text())["metrics"]["top1"])

    assert top1("whole") > 0.8
    chosen = dataset.view_indices
    monkeypatch.setattr(dataset, "view_indices", lambda *given: np.repeat(chosen(*given)[:, 8:9], 16, axis=1))
    assert abs(top1("middle frame") - 1 / 8) < 0.05
