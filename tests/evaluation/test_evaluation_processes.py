"""1, 2 and 3 real processes, batches of 1 to 13 clips, 1 to 17 videos: the same bits of scores and the same metrics.

Run as a script, this file starts two and then three processes over gloo, each of which leaves its results in a folder.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator, debug_launcher

from tests.environment import ENVIRONMENT
from tests.evaluation.tiny_evaluation import CONFIG, TinyModel, make_records, read_views, run
from vidtl.config import EvaluationConfig
from vidtl.evaluation.evaluator import EvaluationResult

NUM_VIDEOS = (1, 2, 5, 10, 17)
BATCH_SIZES = (1, 6, 13)
# Videos, batch size, multi-label, broken videos.
CASES = [(n, b, n % 2 == 0, (n // 2,) if n % 5 == 0 else ()) for n in NUM_VIDEOS for b in BATCH_SIZES]


def evaluate_case(num_videos, batch_size, multi_label, broken, **options) -> EvaluationResult:
    config = replace(CONFIG, evaluation=EvaluationConfig(batch_size=batch_size))
    return run(make_records(num_videos, multi_label), broken, config=config, **options)


def save_results(folder: Path, num_processes: int) -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == num_processes == torch.distributed.get_world_size()
    model = accelerator.prepare(TinyModel().train())
    assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
    scores, metrics, opened = {}, [], []
    for case, (num_videos, batch_size, multi_label, broken) in enumerate(CASES):
        opened.append([])
        records = make_records(num_videos, multi_label)

        def read(indices, records=records, broken=broken):
            opened[-1].extend(indices)
            return read_views(records, broken, indices)

        options = {"model": model, "make_loader": read, "accelerator": accelerator}
        result = evaluate_case(num_videos, batch_size, multi_label, broken, **options)
        scores[str(case)] = result.outcomes.scores
        metrics.append([result.metrics, result.metrics_readable, [list(row) for row in result.unreadable]])
    np.savez(folder / f"{accelerator.process_index}.npz", **scores)
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps([metrics, opened]))
    accelerator.end_training()


@pytest.fixture(scope="module")
def one_process() -> list[EvaluationResult]:
    return [evaluate_case(*case) for case in CASES]


@pytest.fixture(scope="module")
def several_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("num_processes", [2, 3])
def test_real_processes_find_what_one_finds(one_process, several_processes, num_processes):
    folder = several_processes / str(num_processes)
    assert len(list(folder.glob("*.npz"))) == num_processes
    shares = []
    for process in range(num_processes):
        scores = np.load(folder / f"{process}.npz")
        metrics, opened = json.loads((folder / f"{process}.json").read_text())
        shares.append(opened)
        for case, expected in enumerate(one_process):
            every, readable, unreadable = metrics[case]
            np.testing.assert_array_equal(scores[str(case)], expected.outcomes.scores)
            assert every == pytest.approx(expected.metrics, abs=0, nan_ok=True)
            assert readable == pytest.approx(expected.metrics_readable, abs=0, nan_ok=True)
            assert unreadable == [list(row) for row in expected.unreadable]
    for case, (num_videos, *_) in enumerate(CASES):
        assert sorted(index for share in shares for index in share[case]) == list(range(num_videos))


if __name__ == "__main__":
    for count in (2, 3):
        results = Path(sys.argv[1]) / str(count)
        results.mkdir()
        debug_launcher(save_results, (results, count), num_processes=count)
