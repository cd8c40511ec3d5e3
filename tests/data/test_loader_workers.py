"""Decoding workers end with the process that started them, also when it ends with an error between two batches."""

import subprocess
import sys
from pathlib import Path

from tests.environment import REPOSITORY
from vidtl.data.toy import ToySettings, make_toy
from vidtl.runtime.progress import make_progress

CODE = """
import sys
from vidtl.config import ClipConfig, DataConfig, ExperimentConfig, TrainingConfig
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import TrainLoader
from pathlib import Path
config = ExperimentConfig(
    data=DataConfig(num_workers=2),
    clip=ClipConfig(num_frames=4, frame_size=(32, 32), short_side=36),
    training=TrainingConfig(batch_size=4),
)
batches = TrainLoader(read_records(load_description("toy"), "train", Path(sys.argv[1])), config, 0, 1).iterate()
next(batches)
raise RuntimeError("in the middle of a run")
"""


def test_an_error_between_batches_ends_the_process(tmp_path: Path) -> None:
    settings = ToySettings(videos_per_class_train=1, videos_per_class_val=1)
    make_toy(tmp_path, settings, make_progress(is_main_process=False), num_processes=1)
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: in the middle of a run"), done.stderr
