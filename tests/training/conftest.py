"""One thread and one accelerator for all tests of this folder; both are process-wide."""

import pytest
import torch

from tests.training import tiny_run
from vidtl.runtime.launch import make_accelerator


@pytest.fixture(scope="session")
def accelerator():
    torch.set_num_threads(1)  # forked children would wait for the threads of a pool that they did not inherit
    return make_accelerator("fp32")


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(tiny_run, "DROPOUT", False)
