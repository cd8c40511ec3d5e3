"""Every video once: any batch size, one and two real processes, unreadable videos, and the bugs that must not pass.

Run as a script under torchrun, this file evaluates with as many processes and leaves each one's result in a folder.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vidtl.config import ClipConfig, DataConfig, EvaluationConfig, ExperimentConfig
from vidtl.data.batch import Failure, VideoViews
from vidtl.data.loader import EvalLoader
from vidtl.data.pixels import prepare_input
from vidtl.data.protocols import get_protocol
from vidtl.data.records import ClassNames, Records, StringColumn
from vidtl.errors import UserError
from vidtl.evaluation.evaluator import EvaluationResult, evaluate, pack
from vidtl.evaluation.metrics import compute_metrics
from vidtl.evaluation.views import fuse

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_CLASSES = 6
PROTOCOL = SimpleNamespace(name="two_by_three", num_clips=2, num_crops=3, fusion="mean_probabilities")
CONFIG = ExperimentConfig(
    clip=ClipConfig(num_frames=2, stride=1, frame_size=(8, 8), short_side=8), evaluation=EvaluationConfig(batch_size=4)
)


def make_records(num_videos: int, multi_label: bool) -> Records:
    """Video i has class i % K; multi-label ones also (i + 2) % K, and video 4 has none."""
    labels = [[i % NUM_CLASSES, (i + 2) % NUM_CLASSES] if multi_label else [i % NUM_CLASSES] for i in range(num_videos)]
    if multi_label and num_videos > 4:
        labels[4] = []
    counts = np.array([len(row) for row in labels])
    return Records(
        root=Path("videos"),
        classes=ClassNames(tuple(f"class {k}" for k in range(NUM_CLASSES))),
        multi_label=multi_label,
        annotation=Path("list.csv"),
        ids=StringColumn.from_strings(f"-id{i}" for i in range(num_videos)),
        paths=StringColumn.from_strings(f"{i}.mp4" for i in range(num_videos)),
        lines=np.arange(1, num_videos + 1, dtype=np.int32),
        label_offsets=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        label_classes=np.array([k for row in labels for k in row], dtype=np.int32),
        label_starts_s=np.full(counts.sum(), -np.inf, np.float32),
        label_ends_s=np.full(counts.sum(), np.inf, np.float32),
        segment_starts_s=np.zeros(num_videos),
        segment_ends_s=np.full(num_videos, np.inf),
    )


def views_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (6, 2, 8, 8, 3), dtype=np.uint8)


def make_loader(
    records: Records, broken: tuple[int, ...] = (), process: int = 0, processes: int = 1
) -> Iterator[VideoViews]:
    """The contract of `EvalLoader`: records process, process + processes, ..., each once."""
    for i in range(process, len(records), processes):
        if i in broken:
            failure = Failure(i, records.paths[i], f"no frames in {i}")
            yield VideoViews(index=i, pixels=None, colour=0, failure=failure)
        else:
            yield VideoViews(index=i, pixels=views_of(i), colour=0, failure=None)


class TinyModel(nn.Module):
    """Dropout and batch norm show whether it runs in evaluation mode; it notes the batch sizes it is given."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(384, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(0.5))
            self.head = nn.Linear(32, num_classes)
        self.batch_sizes: list[int] = []

    def forward(self, input_BTCHW: torch.Tensor) -> torch.Tensor:
        self.batch_sizes.append(len(input_BTCHW))
        return 4 * self.head(self.body(input_BTCHW.flatten(1)))


def run(records: Records, loader=None, model=None, config=CONFIG, **options) -> EvaluationResult:
    loader = make_loader(records) if loader is None else loader
    return evaluate(model or TinyModel(), loader, records, config, PROTOCOL, Accelerator(cpu=True), **options)


def with_batch_size(batch_size: int) -> ExperimentConfig:
    return replace(CONFIG, evaluation=EvaluationConfig(batch_size=batch_size))


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_those_of_each_video_alone(multi_label):
    records = make_records(7, multi_label)
    result = run(records)
    model = TinyModel().eval()
    for i in range(7):
        with torch.no_grad():
            logits = model(prepare_input(torch.from_numpy(views_of(i)), torch.zeros(6, dtype=torch.int64), CONFIG.clip))
        np.testing.assert_allclose(result.scores[i], fuse(logits.numpy(), PROTOCOL.fusion, multi_label), atol=1e-6)
        np.testing.assert_array_equal(result.targets[i], records.targets(i))
    assert result.scores.dtype == np.float64
    assert result.ids == [f"-id{i}" for i in range(7)]
    names = records.classes.names
    for key, value in compute_metrics(result.scores, result.targets, multi_label, names).items():
        assert result.metrics[key] == pytest.approx(value, nan_ok=True)
    assert result.metrics_readable == result.metrics
    assert ("mAP_charades" in result.metrics) == multi_label
    assert (result.num_annotated, result.num_scored, result.unreadable) == (7, 7, [])


@pytest.mark.parametrize("multi_label", [False, True])
def test_batch_size_changes_nothing_but_the_batches(multi_label):
    records = make_records(7, multi_label)
    reference = run(records, config=with_batch_size(6))
    for batch_size in range(1, 8):
        model = TinyModel()
        result = run(records, model=model, config=with_batch_size(batch_size))
        full, rest = divmod(7 * 6, batch_size)
        assert model.batch_sizes == [batch_size] * full + [rest] * (rest > 0)
        np.testing.assert_allclose(result.scores, reference.scores, atol=1e-6)
        assert result.metrics == reference.metrics


def test_unreadable_videos_are_wrong_listed_and_left_out_of_the_second_figure():
    records = make_records(7, False)
    progress: list[int] = []
    result = run(records, make_loader(records, broken=(2, 6)), on_video=progress.append)
    assert [tuple(row) for row in result.unreadable] == [
        ("-id2", "2.mp4", "no frames in 2"),
        ("-id6", "6.mp4", "no frames in 6"),
    ]
    assert (result.num_annotated, result.num_scored) == (7, 5)
    assert np.isneginf(result.scores[[2, 6]]).all()
    whole = run(records)
    kept = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(result.scores[kept], whole.scores[kept], atol=1e-6)
    right = (whole.scores.argmax(1) == np.arange(7) % NUM_CLASSES)[kept].sum()
    assert result.metrics["top1"] == right / 7
    assert result.metrics_readable["top1"] == right / 5
    assert progress == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_readable_and_multi_label_unreadable():
    records = make_records(7, False)
    result = run(records, make_loader(records, broken=tuple(range(7))))
    assert result.metrics["top1"] == 0
    assert np.isnan(result.metrics_readable["top1"])
    multi = make_records(7, True)
    result = run(multi, make_loader(multi, broken=(0,)))
    assert result.num_scored == 6
    assert result.metrics["mAP"] != result.metrics_readable["mAP"]


def test_training_flags_come_back_even_after_an_error():
    records = make_records(3, False)
    model = TinyModel().train()
    model.head.eval()
    run(records, model=model)
    assert (model.training, model.body[3].training, model.head.training) == (True, True, False)
    with pytest.raises(UserError):
        run(records, model=(small := TinyModel(num_classes=4).train()))
    assert small.training
    assert small.body[1].num_batches_tracked == 0


def test_missing_and_double_videos_are_our_bug():
    records = make_records(4, False)
    videos = list(make_loader(records))
    with pytest.raises(RuntimeError, match="of 4 videos 1 were not scored and 0 more than once, for example '-id3'"):
        run(records, iter(videos[:3]))
    with pytest.raises(RuntimeError, match="0 were not scored and 1 more than once, for example '-id1'"):
        run(records, iter([*videos, videos[1]]))
    with pytest.raises(RuntimeError, match="0 were not scored and 1 more than once"):
        run(records, iter([*videos, *make_loader(records, broken=(0, 1, 2, 3))][:5]))
    with pytest.raises(RuntimeError, match="'-id0' has 5 views, not 6"):
        run(records, iter([replace(videos[0], pixels=videos[0].pixels[:5])]))
    with pytest.raises(RuntimeError, match=r"0 were not scored and 0 more than once, for example 'record 3'"):
        run(records.select([0, 1]), iter(videos))


def test_user_mistakes_take_one_line():
    records = make_records(3, False)
    with pytest.raises(UserError, match=r"the model gives 4 scores per clip, but list\.csv has 6 classes"):
        run(records, model=TinyModel(num_classes=4))
    with pytest.raises(UserError, match=r"list\.csv has no videos"):
        run(records.select([]))
    unlabelled = replace(records, label_offsets=np.array([0, 1, 1, 3]))
    with pytest.raises(UserError, match=r"list\.csv:2: video '-id1' has 0 labels"):
        run(unlabelled)
    broken = TinyModel()
    nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(UserError, match=r"video '-id0' \(videos/0\.mp4\) are not finite"):
        run(records, model=broken)


def test_the_configured_fusion_wins_over_the_published_one():
    records = make_records(3, False)
    config = replace(CONFIG, evaluation=EvaluationConfig(fusion="mean_logits"))
    assert run(records, config=config).fusion == "mean_logits"
    assert run(records).fusion == PROTOCOL.fusion
    assert not np.allclose(run(records, config=config).scores, run(records).scores)


def test_packing_keeps_every_view_in_order_and_holds_back_none():
    lengths = [3, 1, 7, 2]
    videos = [(i, i + 10, np.full((n, 1), i, np.uint8)) for i, n in enumerate(lengths)]
    for batch_size in range(1, 15):
        batches = list(pack(iter(videos), batch_size))
        sizes = [sum(len(piece.pixels) for piece in batch) for batch in batches]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        owners = [piece.index for batch in batches for piece in batch for _ in piece.pixels]
        assert owners == [0] * 3 + [1] + [2] * 7 + [3] * 2
        assert all(piece.colour == piece.index + 10 for batch in batches for piece in batch)


def test_real_videos_through_the_real_loader(shared_data):
    """Planar frames of different colour codes share batches; a missing and a broken file are unreadable."""
    paths = [
        "videos/PaddleVideo__example.avi",
        "broken/absent.mp4",
        "videos/torchcodec__h265_video.mp4",
        REPOSITORY.name,
    ]
    records = replace(make_records(4, False), root=shared_data, paths=StringColumn.from_strings(paths))
    protocol = get_protocol("charades_10x3_max")
    results = []
    for batch_size in (7, 64):
        config = replace(CONFIG, data=DataConfig(num_workers=0), evaluation=EvaluationConfig(batch_size=batch_size))
        loader = EvalLoader(records, config, protocol)
        results.append(evaluate(TinyModel(), loader, records, config, protocol, Accelerator(cpu=True)))
    np.testing.assert_allclose(results[0].scores, results[1].scores, atol=1e-6)
    assert [row.path for row in results[0].unreadable] == [paths[1], paths[3]]
    assert all(row.reason for row in results[0].unreadable)
    assert np.isfinite(results[0].scores[[0, 2]]).all()
    assert (results[0].num_clips, results[0].num_crops, results[0].fusion) == (10, 3, "max")


CASES = [(7, False, (3,)), (7, True, (0, 5)), (1, False, ())]


def save_results(folder: Path, num_processes: int) -> None:
    """What each process of torchrun does: the cases with a wrapped model, and a share of unequal size."""
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == num_processes
    assert torch.distributed.get_world_size() == num_processes
    model = accelerator.prepare(TinyModel().train())
    assert isinstance(model, nn.parallel.DistributedDataParallel)
    results = []
    for num_videos, multi_label, broken in CASES:
        records = make_records(num_videos, multi_label)
        loader = make_loader(records, broken, accelerator.process_index, num_processes)
        results.append(evaluate(model, loader, records, CONFIG, PROTOCOL, accelerator))
    (folder / f"{accelerator.process_index}.pickle").write_bytes(pickle.dumps(results))
    accelerator.end_training()


@pytest.mark.parametrize("num_processes", [1, 2])
def test_real_processes_agree(tmp_path, num_processes):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    python_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, __file__, str(tmp_path), str(num_processes)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.iterdir())) == num_processes
    for file in tmp_path.iterdir():
        for (num_videos, multi_label, broken), result in zip(CASES, pickle.loads(file.read_bytes()), strict=True):
            records = make_records(num_videos, multi_label)
            expected = run(records, make_loader(records, broken))
            assert result.unreadable == expected.unreadable
            assert len(result.unreadable) == len(broken)
            np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)
            np.testing.assert_array_equal(result.targets, expected.targets)
            assert result.metrics == pytest.approx(expected.metrics, abs=1e-12, nan_ok=True)
            assert result.metrics_readable == pytest.approx(expected.metrics_readable, abs=1e-12, nan_ok=True)


if __name__ == "__main__":
    save_results(Path(sys.argv[1]), int(sys.argv[2]))
