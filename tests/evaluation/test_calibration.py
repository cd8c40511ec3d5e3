"""Temperature and thresholds against known ones and brute force, and a file of any content."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import f1_score

from tests.metrics.made_outcomes import made_outcomes
from tests.refusals import refused
from vidtl.config import ClipConfig, ModelConfig
from vidtl.evaluation.calibration import best_thresholds, fit_calibration, read_calibration, tempered, write_calibration
from vidtl.metrics import Outcomes
from vidtl.models import VideoModel, build_model, save_model_directory
from vidtl.training.checkpoint import Checkpoint

NAMES = ("walks", "sits", "läuft \U0001f3c3")


def scaled_outcomes(multi_label: bool, scale: float, num_videos: int = 4000) -> Outcomes:
    """Labels drawn from the probabilities of logits, which are then multiplied by `scale`; some unreadable videos."""
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(0, 2, (num_videos, len(NAMES)))
    if multi_label:
        targets_NK = rng.random(logits_NK.shape) < expit(logits_NK)
    else:
        targets_NK = (logits_NK + rng.gumbel(size=logits_NK.shape)).argmax(axis=1)[:, None] == np.arange(len(NAMES))
    logits_NK[::9] = -np.inf
    return made_outcomes(scale * logits_NK, targets_NK, multi_label)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_factor_of_the_logits_is_found(multi_label: bool, scale: float) -> None:
    outcomes = scaled_outcomes(multi_label, scale)
    found = fit_calibration(outcomes, NAMES, fingerprint="", step=1, split="val", protocol="center")
    assert found.temperature == pytest.approx(scale, rel=0.1)
    assert found.num_videos == outcomes.readable.sum() < len(outcomes)
    assert found.nll[1] < found.nll[0]
    assert found.ece[1] < min(0.02, found.ece[0])
    assert set(found.thresholds) == (set(NAMES) if multi_label else set())
    scores_K = outcomes.scores[1] / found.temperature
    expected = expit(scores_K) if multi_label else softmax(scores_K)
    np.testing.assert_allclose(tempered(outcomes.probabilities[1], found.temperature, multi_label), expected)


def test_thresholds_reach_the_best_f1_of_any() -> None:
    rng = np.random.default_rng(1)
    chances_NK = rng.integers(0, 12, (60, 5)) / 12  # many are equal
    targets_NK = rng.random(chances_NK.shape) < chances_NK
    targets_NK[:, 4] = False

    def f1(k: int, threshold: float) -> float:
        return float(f1_score(targets_NK[:, k], chances_NK[:, k] >= threshold))

    found = best_thresholds(chances_NK, targets_NK)
    for k in range(4):
        assert f1(k, found[k]) == max(f1(k, value) for value in chances_NK[:, k])
        assert found[k] not in chances_NK[:, k]
    assert found[4] == 0.5


@pytest.fixture
def model(tmp_path: Path) -> VideoModel:
    """A model with a `calibration.json` of a data set with another order of the classes, saved in `tmp_path`."""
    clip = ClipConfig(num_frames=1, frame_size=(48, 48))
    model = build_model(ModelConfig(architecture="mini_vit", width=16, head_width=8), clip, len(NAMES))
    model.class_names = NAMES
    save_model_directory(model, tmp_path)
    assert read_calibration(Checkpoint(tmp_path), model, multi_label=True) is None
    origin = {"fingerprint": Checkpoint(tmp_path).fingerprint(), "step": None, "split": "val", "protocol": "center"}
    written = fit_calibration(scaled_outcomes(True, 2.0, 60), NAMES[::-1], **origin)
    write_calibration(written, Checkpoint(tmp_path))
    found = read_calibration(Checkpoint(tmp_path), model, multi_label=True)
    assert (found, tuple(found.thresholds)) == (written, NAMES)
    return model


def test_a_file_of_other_content_is_one_line(model: VideoModel, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    content = json.loads(file.read_text())
    for key, value in [
        *(("temperature", value) for value in (0, True, float("nan"), None)),
        *(("thresholds", value) for value in ({"walks": 2}, {"walks": [[]]}, {"runs": 0.5}, {})),
        *(("multi_label", False), ("fingerprint", "0" * 64), ("temprature", 1.5)),
    ]:
        file.write_text(json.dumps(content | {key: value}))
        with refused(file, key):
            read_calibration(Checkpoint(tmp_path), model, multi_label=True)
