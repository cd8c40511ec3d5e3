"""Benchmarks, run in this process."""

import sys
from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the `main` of a benchmark and return its standard output."""

    def run(main: Callable[[], None], *options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, options)])
        capsys.readouterr()
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    """Restore the number of threads, which benchmarks set."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
