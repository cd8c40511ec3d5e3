"""`--tokens` with an elastic model: models of fewer tokens, curves, and as many tokens as a clip needs."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import eval as evaluation
import export
import numpy as np
import predict as prediction
import pytest
import torch
from scipy.special import expit, softmax
from toy_clip import MOTIONS

from benchmarks import token_budget
from tests.evaluation.made_result import made_result
from tests.evaluation.prediction_table import read_predictions
from tests.metrics.made_outcomes import made_outcomes
from vidtl.config.documents import read_json
from vidtl.evaluation.predictions import write_predictions
from vidtl.evaluation.token_budget import doubt
from vidtl.models import load_model_directory, save_model_directory
from vidtl.models.base import with_num_tokens
from vidtl.models.complexity import count_multiply_adds

COUNTS = (1, 2, 4, 8)
HERE = ("--data.num_workers", "0")


@pytest.fixture(scope="module")
def elastic(random_model, tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("elastic"), elastic=True, class_names=MOTIONS, multi_label=False)


@pytest.fixture
def evaluate(toy, run_main, tmp_path):
    """Evaluate with these tokens: folder, rows of tokens.json, and predictions of each report."""

    def start(model, name, *tokens):
        given = ["--data.dataset", "toy", "--data.root", toy, "--output_dir", tmp_path / "report", "--html", "false"]
        run_main(evaluation.main, "--checkpoint", model, *given, *HERE, "--tokens", *tokens)
        folder = tmp_path / f"report/val-center-tokens-{name}"
        parts = [folder / f"tokens-{count}" for count in COUNTS] if "," in name else [folder]
        rows = read_json(folder / "tokens.json")["rows"] if (folder / "tokens.json").exists() else []
        return folder, rows, [read_predictions(part / "predictions.csv") for part in parts]

    return start


def test_a_curve_is_that_of_single_evaluations(elastic, evaluate):
    model = load_model_directory(elastic)
    folder, rows, tables = evaluate(elastic, "1,2,4,8", "4,2,1,8")
    for row, count in zip(rows, COUNTS, strict=True):
        report = read_json(folder / f"tokens-{count}/metrics.json")
        assert (report["metrics"]["top1"], report["settings"]["tokens"]) == (row["top1"], str(row["tokens"]))
        assert row["multiply_adds"] == count_multiply_adds(with_num_tokens(model, count), model.clip_config)
    assert len({row["multiply_adds"] - row["behind_learner"] for row in rows}) == 1
    assert not any(np.allclose(one.scores, other.scores, atol=1e-5) for one, other in pairwise(tables))
    np.testing.assert_allclose(evaluate(elastic, "2", "2")[2][0].scores, tables[1].scores, atol=1e-6)


def test_fewer_tokens_are_a_plain_model_for_every_tool(elastic, toy, run_main, tmp_path):
    plain = with_num_tokens(load_model_directory(elastic), 2)
    save_model_directory(plain, tmp_path / "plain")
    for options in (["--json", "--top_k", "0"], ["--timeline", "--json"]):
        given = [toy / "videos/val", *HERE, *options, "--checkpoint"]
        of_elastic, _ = run_main(prediction.main, *given, elastic, "--tokens", 2)
        assert of_elastic == run_main(prediction.main, *given, tmp_path / "plain")[0]
    run_main(export.main, "--checkpoint", elastic, "--output", tmp_path / "two.pt2", "--tokens", 2)
    clips = torch.randn(2, *plain.clip_shape)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(tmp_path / "two.pt2").module()(clips), plain.eval()(clips))


def test_as_many_tokens_as_the_answer_needs(elastic, evaluate, toy, run_main, tmp_path):
    model = shutil.copytree(elastic, tmp_path / "model")
    _, fixed, tables = evaluate(model, "1,2,4,8", "1,2,4,8", "--calibrate")
    calibration = read_json(model / "calibration.json")
    assert calibration["token_temperatures"]["8"] == calibration["temperature"]
    temperatures = [float(np.median(table.scores.std(axis=1))) * 5 for table in tables]  # confidences of the same size
    calibration["token_temperatures"] = dict(zip(map(str, COUNTS), temperatures, strict=True))
    (model / "calibration.json").write_text(json.dumps(calibration))
    stages = np.array([table.scores for table in tables]) / np.reshape(temperatures, (4, 1, 1))
    sure = softmax(stages, axis=2).max(axis=2)
    middles = [(one + other) / 2 for one, other in pairwise(np.sort(sure, axis=None).tolist())]
    ends_of = {c: np.vstack([sure[:-1] >= c, np.ones((1, 16))]).argmax(axis=0) for c in middles}
    middle = max(ends_of, key=lambda level: len({*ends_of[level]}))
    costs = np.array([row["multiply_adds"] for row in fixed])
    assert len({*ends_of[middle]}) >= 3
    for confidence, ends in ((1e-9, np.zeros(16, int)), (middle, ends_of[middle]), (1.0, np.full(16, 3))):
        given = "auto", "--confidence", confidence
        _, rows, (table,) = evaluate(model, f"auto-{confidence}", *given)
        np.testing.assert_allclose(table.scores, stages[ends, np.arange(16)], atol=1e-5)
        assert [row["share"] * 16 for row in rows] == np.bincount(ends, minlength=4).tolist()
        retries = [row["with_retries"] for row in rows] - costs  # answers, less the attention to later tokens
        assert (retries <= rows[0]["of_answer"] * np.arange(4)).all()
        assert (retries > 0.9 * rows[0]["of_answer"] * np.arange(4) - 0.1 * costs).all()
        options = ["--checkpoint", model, "--json", "--top_k", "0", *HERE, "--tokens", *given]
        output, errors = run_main(prediction.main, *(toy / path for path in table.paths), *options)
        for line, scores_K in zip(output.splitlines(), table.scores, strict=True):
            found = {each["class"]: each["score"] for each in json.loads(line)["scores"]}
            assert [found[name] for name in table.class_names] == scores_K.tolist()
        assert f"8: {(ends == 3).sum()}" in errors


@pytest.mark.parametrize(
    ("main", "options", "parts"),
    [
        (evaluation.main, ("--tokens", "1,9"), ("--tokens", "1,9", "1 to 8")),
        (evaluation.main, ("--tokens", "1,0"), ("--tokens", "'0'", "1 or more")),
        (evaluation.main, ("--tokens", "auto", "--confidence", "1.5"), ("--confidence", "1.5", "above 0 to 1")),
        (evaluation.main, ("--confidence", "0.5"), ("--confidence", "0.5", "--tokens auto")),
        (prediction.main, ("--submission", "x.csv", "--tokens", "1,2"), ("--tokens", "1,2", "--confidence")),
        (prediction.main, ("--submission", "x.csv", "--tokens", "2"), ("--tokens", "'2'", "token_learner.elastic")),
        (export.main, ("--output", "x.pt2", "--tokens", "auto"), ("--tokens", "'auto'")),
    ],
)
def test_refusals(elastic, untrained_model, toy, run_main, main, options, parts):
    data = () if main is export.main else ("--data.dataset", "toy", "--data.root", toy)
    model = untrained_model if "token_learner.elastic" in parts else elastic
    run_main(main, "--checkpoint", model, *options, *data, refused=parts)


def test_doubt_is_what_confidence_lacks_of_1():
    logits_BK = np.array([[1.0, 2.0, -3.0], [60.0, 0.0, -60.0]])
    single, several = (doubt(torch.from_numpy(logits_BK), each).numpy() for each in (False, True))
    np.testing.assert_allclose(single, 1 - softmax(logits_BK, axis=1).max(axis=1), atol=1e-15)
    np.testing.assert_allclose(several, np.minimum(expit(logits_BK), expit(-logits_BK)).mean(axis=1))


def test_a_budget_chosen_on_one_split_is_judged_on_another(run_main, tmp_path):
    """Half of the clips are right and sure with one token, the others with four only."""
    made = made_result(400, ("a", "b", "c"))
    targets, hard_N = made.outcomes.targets.astype(float), np.arange(400) // 2 % 2 == 1
    for folder, k in ((tmp_path / f"tokens-{k}", k) for k in (1, 2, 4)):
        folder.mkdir()
        scores = np.where(hard_N[:, None] & (k < 4), np.roll(targets, 1, axis=1), 4 * targets)
        write_predictions(replace(made, outcomes=made_outcomes(scores, targets, False)), folder / "predictions.csv")
        (folder / "metrics.json").write_text('{"fusion": "mean_logits"}')
    rows = [{"tokens": k, "behind_learner": 10 * k, "of_answer": 2} for k in (1, 2, 4)]
    (tmp_path / "tokens.json").write_text(json.dumps({"rows": rows}))
    run_main(token_budget.main, "--choose", tmp_path, "--test", tmp_path, "--output", tmp_path / "budget.json")
    report = read_json(tmp_path / "budget.json")
    assert report["options"].startswith("--tokens 1,4 --confidence 0.")
    assert report["saved_of_cheapest_equal_fixed"] == 1 - (0.5 * 10 + 0.5 * 42) / 40
    found = [(report[name]["accuracy"], report[name]["multiply_adds"]) for name in ("cascade", "random", "oracle")]
    assert found == [(1.0, 26.0), (0.75, 25.0), (1.0, 25.0)]
    assert report["cascade"]["share_and_accuracy_of_exits"] == [[0.5, 1.0], [0.0, None], [0.5, 1.0]]
