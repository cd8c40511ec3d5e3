"""Folders of real data and reference outputs, whose tests skip if absent, and tools run in this process."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.environment import RunMain, shared_folder
from tests.refusals import assert_refusal

# Before torch is imported, here and in subprocesses: more threads make the suite several times slower on busy cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from vidtl.runtime.signals import STOP_SIGNALS, run_tool


def _folder(variable: str, name: str) -> Path:
    folder = shared_folder(variable, name)
    if not folder.is_dir():
        pytest.skip(f"needs the folder {folder} (set {variable} to another place)")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real videos and annotation files."""
    return _folder("VIDTL_DATA", "data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the authors' own implementations."""
    return _folder("VIDTL_GOLDEN", "golden")


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunMain:
    """Run the `main` of a tool or benchmark and check its exit code, or that its last line names all parts:
    standard output and standard error."""

    def run(
        main: Callable[[], None], *options: object, code: int = 0, refused: Sequence[object] = ()
    ) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, options)])
        capfd.readouterr()
        threads, handlers = torch.get_num_threads(), {number: signal.getsignal(number) for number in STOP_SIGNALS}
        with pytest.raises(SystemExit) as stopped:
            run_tool(main)
        torch.set_num_threads(threads)  # benchmarks change it
        for number, handler in handlers.items():  # forks of later tests must end by signals
            signal.signal(number, handler)
        output = capfd.readouterr()
        assert int(stopped.value.code or 0) == (2 if refused else code), output.err
        if refused:
            assert_refusal(output.err.splitlines()[-1], *refused)
        return output.out, output.err

    return run
