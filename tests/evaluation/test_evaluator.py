"""Every video once: any batch size, unreadable videos, and bugs that must not pass."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tests.evaluation.tiny_evaluation import CONFIG, NUM_CLASSES, PROTOCOL, TinyModel, make_records, read_views, run
from tests.refusals import refused
from vidtl.annotations.records import StringColumn
from vidtl.config import DataConfig, EvaluationConfig
from vidtl.data.batch import prepare_input
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.evaluation.evaluator import evaluate
from vidtl.evaluation.scoring import FUSIONS, Scores, fixed_batches, fuse, probabilities
from vidtl.metrics import compute_metrics


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_those_of_each_video_alone(multi_label):
    records = make_records(7, multi_label)
    result = run(records)
    model = TinyModel().eval()
    for i, video in enumerate(read_views(records, (), range(7))):
        with torch.no_grad():
            logits = model(prepare_input(video.pixels, torch.zeros(6, dtype=torch.int64), CONFIG.clip))
        expected = fuse(logits.numpy(), PROTOCOL.fusion, multi_label)
        np.testing.assert_allclose(result.outcomes.scores[i], expected, atol=1e-6)
        np.testing.assert_array_equal(result.outcomes.targets[i], records.targets(i))
    assert result.ids == [f"-id{i}" for i in range(7)]
    assert result.metrics == pytest.approx(compute_metrics(result.outcomes), nan_ok=True)
    assert result.metrics_readable == result.metrics
    assert (len(result.outcomes), result.num_scored, result.unreadable) == (7, 7, [])


@pytest.mark.parametrize("multi_label", [False, True])
def test_batch_size_changes_only_the_batches(multi_label):
    records = make_records(7, multi_label)
    reference = run(records)
    for batch_size in (1, 6, 7, 13, 64):
        model = TinyModel()
        result = run(records, model=model, config=replace(CONFIG, evaluation=EvaluationConfig(batch_size=batch_size)))
        sizes = []
        for batch in fixed_batches(7, 6, batch_size):
            full, rest = divmod(len(batch) * 6, batch_size)
            sizes += [batch_size] * full + [rest] * (rest > 0)
        assert model.batch_sizes == sizes
        np.testing.assert_allclose(result.outcomes.scores, reference.outcomes.scores, atol=1e-6)
        assert result.metrics == pytest.approx(reference.metrics, abs=1e-6, nan_ok=True)


class NotedProgress:
    def __init__(self) -> None:
        self.done: list[int] = []

    @contextmanager
    def task(self, title: str, unit: str, total: int, done: int = 0):
        self.total, self.before = total, done
        yield self

    def update(self, done: int, figures=None) -> None:
        self.done.append(done)


def test_unreadable_videos_are_wrong_listed_and_left_out_of_the_second_figure():
    records = make_records(7, False)
    progress = NotedProgress()
    result = run(records, broken=(2, 6), progress=progress)
    assert [tuple(row) for row in result.unreadable] == [(f"-id{i}", f"{i}.mp4", f"no frames in {i}") for i in (2, 6)]
    assert (len(result.outcomes), result.num_scored) == (7, 5)
    assert np.isneginf(result.outcomes.scores[[2, 6]]).all()
    whole, kept = run(records), [0, 1, 3, 4, 5]
    np.testing.assert_allclose(result.outcomes.scores[kept], whole.outcomes.scores[kept], atol=1e-6)
    right = (whole.outcomes.scores.argmax(1) == np.arange(7) % NUM_CLASSES)[kept].sum()
    assert result.metrics["top1"] == right / 7
    assert result.metrics_readable["top1"] == right / 5
    assert (progress.total, progress.done) == (7, [1, 2, 3, 4, 5, 6, 7])
    result = run(records, broken=range(7))
    assert result.metrics["top1"] == 0
    assert np.isnan(result.metrics_readable["top1"])
    result = run(make_records(7, True), broken=(0,))
    assert result.num_scored == 6
    assert result.metrics["mAP"] != result.metrics_readable["mAP"]


def test_training_flags_are_restored_even_after_an_error():
    records = make_records(3, False)
    model, small = TinyModel().train(), TinyModel(num_classes=4).train()
    model.head.eval()
    run(records, model=model)
    assert (model.training, model.body[3].training, model.head.training) == (True, True, False)
    with refused("4 scores", "list.csv", "6 classes"):
        run(records, model=small)
    assert small.training
    assert small.body[1].num_batches_tracked == 0


def test_missing_and_double_videos_are_a_bug():
    records = make_records(4, False)
    videos = list(read_views(records, (), range(4)))
    for given, named in [
        (videos[:3], r"\[\] were read where \[3\] were due"),
        ([*videos, videos[1]], "record 1 was read after all"),
        ([*videos[:2], videos[1], videos[3]], r"\[1\] were read where \[2\] were due"),
        ([replace(videos[0], pixels=videos[0].pixels[:5]), *videos[1:]], "record 0 has 5 views, not 6"),
    ]:
        with pytest.raises(RuntimeError, match=named):
            run(records, make_loader=lambda indices, given=given: given)
    row = np.zeros(NUM_CLASSES)
    scores = Scores({0: row, 2: row})
    for other in (Scores({2: row}), Scores({}, {2: "gone"})):
        with pytest.raises(RuntimeError, match="more than once, for example record 2"):
            scores.update(other)
    with pytest.raises(RuntimeError, match="1 of 3 videos were not scored, for example 1"):
        scores.table(3, NUM_CLASSES)


@pytest.mark.parametrize("num_views", [1, 3, 12, 30])
def test_batches_cover_every_video_once_and_bound_the_clips(num_views):
    for batch_size in (1, 5, 16, 64):
        batches = fixed_batches(50, num_views, batch_size)
        assert [index for batch in batches for index in batch] == list(range(50))
        assert all(len(batch) == 1 or len(batch) * num_views <= batch_size for batch in batches)


def test_mistakes_are_refused():
    records, broken = make_records(3, False), TinyModel()
    nn.init.constant_(broken.head.bias, float("nan"))
    unlabeled = replace(records, label_offsets=np.array([0, 1, 1, 3]))
    for given, model, named in [
        (records.select([]), None, ("list.csv",)),
        (unlabeled, None, ("list.csv:2", "'-id1'", "0 labels")),
        (records, broken, ("'-id0'", "videos/0.mp4", "finite")),
    ]:
        with refused(*named):
            run(given, model=model)


def test_the_configured_fusion_wins_over_the_published_one():
    records = make_records(3, False)
    config = replace(CONFIG, evaluation=EvaluationConfig(fusion="mean_logits"))
    configured, published = run(records, config=config), run(records)
    assert (configured.fusion, published.fusion) == ("mean_logits", PROTOCOL.fusion)
    assert not np.allclose(configured.outcomes.scores, published.outcomes.scores)


def test_real_videos_through_the_real_loader(shared_data):
    """Planar frames of different color codes share batches; a missing file and a folder are unreadable."""
    paths = ["videos/PaddleVideo__example.avi", "broken/absent.mp4", "videos/torchcodec__h265_video.mp4", "videos"]
    records = replace(make_records(4, False), root=shared_data, paths=StringColumn.from_strings(paths))
    protocol = get_protocol("charades_10x3_max")
    results = []
    for batch_size in (7, 64):
        evaluation = EvaluationConfig(batch_size=batch_size)
        loader = partial(EvalLoader, records, protocol, CONFIG.clip, DataConfig(num_workers=0))
        sections = CONFIG.clip, evaluation, protocol, Accelerator(cpu=True)
        results += evaluate(TinyModel(), loader, records, *sections)
    np.testing.assert_allclose(results[0].outcomes.scores, results[1].outcomes.scores, atol=1e-6)
    assert [row.path for row in results[0].unreadable] == [paths[1], paths[3]]
    assert all(row.reason for row in results[0].unreadable)
    assert np.isfinite(results[0].outcomes.scores[[0, 2]]).all()
    assert (results[0].num_clips, results[0].num_crops, results[0].fusion) == (10, 3, "max")


def test_each_fusion_is_its_formula_for_any_order_of_views():
    logits = np.random.default_rng(0).normal(0, 4, (12, 7)).astype(np.float32)
    wide, before = logits.astype(np.float64), logits.copy()
    sigmoid, softmax = 1 / (1 + np.exp(-wide)), np.exp(wide) / np.exp(wide).sum(axis=-1, keepdims=True)
    expected = {
        ("mean_logits", False): wide.mean(0),
        ("mean_logits", True): wide.mean(0),
        ("mean_probabilities", False): softmax.mean(0),
        ("mean_probabilities", True): sigmoid.mean(0),
        ("max", False): softmax.max(0),
        ("max", True): wide.max(0),
    }
    assert {name for name, _ in expected} == set(FUSIONS)
    for (fusion, multi_label), scores in expected.items():
        fused = fuse(logits, fusion, multi_label)
        assert fused.dtype == np.float64
        np.testing.assert_allclose(fused, scores, rtol=1e-14)
        np.testing.assert_allclose(fuse(logits[::-1], fusion, multi_label), scores, rtol=1e-13)
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(np.argsort(fuse(logits, "max", True)), np.argsort(sigmoid.max(0)))


def test_large_logits_stay_distinct():
    logits = np.array([[20.0, 30.0, 40.0, 400.0, 401.0]], dtype=np.float32)
    assert np.all(np.diff(fuse(logits, "max", True)) > 0)
    assert np.all(np.diff(fuse(logits, "mean_logits", True)) > 0)
    assert len(set(fuse(logits[:, :3], "mean_probabilities", True))) == 3  # a float32 sigmoid has two 1.0 here


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_probabilities(fusion, multi_label):
    logits = np.random.default_rng(3).normal(0, 30, (8, 4, 6))
    scores = np.stack([fuse(each, fusion, multi_label) for each in logits])
    scores[1] = -np.inf
    chances = probabilities(scores, fusion, multi_label)
    assert np.isnan(chances[1]).all()
    kept = np.delete(chances, 1, axis=0)
    assert ((kept >= 0) & (kept <= 1)).all()
    assert (np.argsort(chances[0], kind="stable") == np.argsort(scores[0], kind="stable")).all() or multi_label
    if not multi_label and fusion != "max":
        np.testing.assert_allclose(kept.sum(1), 1)
