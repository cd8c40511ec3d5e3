"""Folders of real data and reference outputs; tests skip if theirs is absent."""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.environment import REPOSITORY

# Before torch is imported, here and in subprocesses: more threads make the suite several times slower on busy cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


def _folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name)).resolve()
    if not folder.is_dir():
        pytest.skip(f"needs the folder {folder} (set {variable} to another place)")
    return folder


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Restore the number of threads, which benchmarks set."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real videos and annotation files."""
    return _folder("VIDTL_DATA", "data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the authors' own implementations."""
    return _folder("VIDTL_GOLDEN", "golden")
