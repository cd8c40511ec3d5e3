"""One thread and one accelerator for all tests of this folder; both are process-wide."""

import pytest
import torch
from accelerate import Accelerator

from vidtl.runtime.launch import make_accelerator


@pytest.fixture(scope="session")
def accelerator() -> Accelerator:
    torch.set_num_threads(1)  # forked children would wait for the threads of a pool that they did not inherit
    return make_accelerator("fp32")
