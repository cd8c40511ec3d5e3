"""Benchmarks, run in this process."""

import sys
from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def _restored_threads(restored_threads: None) -> None: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the `main` of a benchmark and return its standard output."""

    def run(main: Callable[[], None], *options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, options)])
        capsys.readouterr()
        main()
        return capsys.readouterr().out

    return run
