"""1, 2 and 3 real processes, batches of 1 to 13 clips, 1 to 17 videos: the same bits of scores and the same metrics.

Run as a script, this file starts two and then three processes over gloo, which evaluate all combinations in one go and
leave each process's results in a folder. (`accelerate launch` of the tool itself: tests/tools/.)
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator, debug_launcher

from tests.environment import REPOSITORY
from tests.evaluation.tiny_evaluation import CONFIG, PROTOCOL, TinyModel, make_records, read_views, run
from vidtl.config import EvaluationConfig
from vidtl.evaluation.evaluator import EvaluationResult, evaluate

NUM_VIDEOS = (1, 2, 5, 10, 17)
BATCH_SIZES = (1, 6, 13)
CASES = [(n, b, n % 2 == 0, (n // 2,) if n % 5 == 0 else ()) for n in NUM_VIDEOS for b in BATCH_SIZES]
"""Videos, batch size, multi-label, broken videos."""


def evaluate_case(num_videos, batch_size, multi_label, broken, **options) -> EvaluationResult:
    config = replace(CONFIG, evaluation=EvaluationConfig(batch_size=batch_size))
    return run(make_records(num_videos, multi_label), broken, config=config, **options)


def save_results(folder: Path, num_processes: int) -> None:
    """Evaluate all cases with a wrapped model, in each process."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == num_processes == torch.distributed.get_world_size()
    model = accelerator.prepare(TinyModel().train())
    assert isinstance(model, torch.nn.parallel.DistributedDataParallel)
    scores, metrics, opened = {}, [], []
    for case, (num_videos, batch_size, multi_label, broken) in enumerate(CASES):
        records = make_records(num_videos, multi_label)
        config = replace(CONFIG, evaluation=EvaluationConfig(batch_size=batch_size))
        opened_now: list[int] = []

        def read(indices, opened_now=opened_now, records=records, broken=broken):
            opened_now.extend(indices)
            return read_views(records, broken, indices)

        result = evaluate(model, read, records, config.clip, config.evaluation, PROTOCOL, accelerator)
        scores[str(case)] = result.outcomes.scores
        metrics.append([result.metrics, result.metrics_readable, [list(row) for row in result.unreadable]])
        opened.append(opened_now)
    np.savez(folder / f"{accelerator.process_index}.npz", **scores)
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps([metrics, opened]))
    accelerator.end_training()


@pytest.fixture(scope="module")
def one_process() -> list[EvaluationResult]:
    return [evaluate_case(*case) for case in CASES]


@pytest.fixture(scope="module")
def several_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    python_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
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
            np.testing.assert_array_equal(scores[str(case)], expected.outcomes.scores)
            assert metrics[case][0] == pytest.approx(expected.metrics, abs=0, nan_ok=True)
            assert metrics[case][1] == pytest.approx(expected.metrics_readable, abs=0, nan_ok=True)
            assert metrics[case][2] == [list(row) for row in expected.unreadable]
    for case, (num_videos, *_) in enumerate(CASES):
        assert sorted(index for share in shares for index in share[case]) == list(range(num_videos))


if __name__ == "__main__":
    for count in (2, 3):
        results = Path(sys.argv[1]) / str(count)
        results.mkdir()
        debug_launcher(save_results, (results, count), num_processes=count)
