"""Where the tests lie, and the surroundings of processes that they start."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
"""Of a process on the CPU: one thread for each, and this repository's code in the tests' scripts, too."""
