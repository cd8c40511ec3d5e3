"""Results of the tools on small fixed inputs equal those in `snapshot.json`."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

import av
import pytest
import torch
from torch import nn

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.snapshot.collect import RECORD
from tests.snapshot.sections import SECTIONS, TOLERANCES

TIMEOUT_S = 900

pytestmark = pytest.mark.timeout(TIMEOUT_S)

DRAWN = 1.4025031
"""Sum of 64 values by torch's generator when the snapshot was recorded; other versions (2.11) draw others."""
ENCODER = "18."
"""PyAV when it was recorded: other builds of x264 write other bytes and pixels of the toy set."""


def skip_if_versions_differ(section: str) -> None:
    """Skip sections whose values depend on torch's random numbers or on the encoder of the toy videos."""
    torch.manual_seed(0)
    draws_differ = abs(nn.init.trunc_normal_(torch.empty(64)).sum().item() - DRAWN) > 1e-4
    if section in ("weights", "training", "evaluation") and draws_differ:
        pytest.skip(f"torch {torch.__version__} draws other random numbers than the snapshot's version")
    if section in ("clips", "training", "evaluation") and not av.__version__.startswith(ENCODER):
        pytest.skip(f"PyAV {av.__version__} encodes other toy videos than the snapshot's version")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Collect all sections in a subprocess, which forks."""
    output = tmp_path_factory.mktemp("snapshot") / "collected.json"
    command = [sys.executable, "-W", "ignore", "-m", "tests.snapshot.collect", str(output)]
    done = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


def differences(recorded: Any, collected: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Yield a line for each recorded value that is lost or changed; floats may differ by `tolerance`."""
    if isinstance(recorded, dict) and isinstance(collected, dict):
        for key, value in recorded.items():
            yield from differences(value, collected.get(key, "lost"), tolerance, f"{place}[{key}]")
    elif isinstance(recorded, list) and isinstance(collected, list) and len(recorded) == len(collected):
        for number, (old, new) in enumerate(zip(recorded, collected, strict=True)):
            yield from differences(old, new, tolerance, f"{place}[{number}]")
    elif isinstance(recorded, float) and isinstance(collected, float):
        if not math.isclose(recorded, collected, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{place} is {collected!r}; it was {recorded!r}"
    elif type(recorded) is not type(collected) or recorded != collected:
        yield f"{place} is {collected!r}; it was {recorded!r}"


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_recorded_values_are_unchanged(section: str, collected: dict[str, Any]) -> None:
    skip_if_versions_differ(section)
    recorded, values = json.loads(RECORD.read_text())[section], collected[section]
    if section == "configs":  # files and presets are changes of the defaults
        recorded, values = (
            {name: each["defaults"] | changes for name, changes in each.items()} for each in (recorded, values)
        )
    found = list(differences(recorded, values, TOLERANCES.get(section, 0.0), section))
    assert not found, "\n".join([f"{len(found)} differences:", *islice(found, 10)])


def test_differences_name_their_place() -> None:
    recorded = {"a": {"b": [1, 2.0]}, "c": "x", "d": 3}
    assert list(differences(recorded, {"a": {"b": [1, 2.00001]}, "c": "x", "d": 3, "new": 0}, 1e-4)) == []
    found = list(differences(recorded, {"a": {"b": [1, 2.1]}, "c": "y"}, 1e-4))
    assert [line.split(" is ")[0] for line in found] == ["[a][b][1]", "[c]", "[d]"]
