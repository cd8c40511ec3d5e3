"""The tools do on small fixed inputs what they did when `snapshot.json` was recorded, under the names of today."""

import json
import subprocess
import sys
from itertools import islice
from typing import Any

import pytest

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.snapshot.collect import RECORD
from tests.snapshot.compare import differences, expand_configs
from tests.snapshot.renames import Renames
from tests.snapshot.sections import SECTIONS, TOLERANCES

MOST_TOLD = 10

TIMEOUT_S = 900
"""A minute where nothing else runs; several where many share the cores."""

pytestmark = pytest.mark.timeout(TIMEOUT_S)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Collect all sections in a process of its own, which forks."""
    output = tmp_path_factory.mktemp("snapshot") / "collected.json"
    command = [sys.executable, "-W", "ignore", "-m", "tests.snapshot.collect", "--output", str(output)]
    done = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_nothing_recorded_is_lost_or_changed(section: str, collected: dict[str, Any]) -> None:
    values = collected[section]
    if "skipped" in values:
        pytest.skip(values["skipped"])
    assert "failed" not in values, values["failed"]
    recorded = json.loads(RECORD.read_text())[section]
    if section == "configs":
        recorded = expand_configs(recorded)
    found = list(differences(recorded, values, TOLERANCES.get(section, 0.0), section))
    assert not found, "\n".join([f"{len(found)} differences:", *islice(found, MOST_TOLD)])


def test_old_names_are_translated() -> None:
    rows = [("key", "data.root", "data.folder"), ("key", "clip.fps", ""), ("key", "model.mini_vit", "")]
    rows += [
        ("key", "model.vivit", "model.transformer"),
        ("value", "augmentation.crop=centre", "augmentation.crop=center"),
    ]
    rows += [
        ("value", "data.size=[1, 2]", "data.size=[2, 1]"),
        ("value", "data.decoder=decord", ""),
        ("option", "a", "b"),
    ]
    renames = Renames([dict(zip(("kind", "old", "new"), row, strict=True)) for row in rows])
    before = {
        "data.root": "a",
        "clip.fps": 3,
        "model.vivit.width": 8,
        "augmentation.crop": "centre",
        "data.size": [1, 2],
    }
    after = {"data.folder": "a", "model.transformer.width": 8, "augmentation.crop": "center", "data.size": [2, 1]}
    assert renames.settings(before) == after
    assert renames.removed({"data.decoder": "decord"})
    assert renames.removed({"model.mini_vit.patch": 6})
    assert not renames.removed({"data.decoder": "pyav", "a": 1})
    assert renames.options({"data.root": "x", "data.size": [1, 2]}) == ["--data.folder", "x", "--data.size", "[2, 1]"]


def test_differences_name_their_place() -> None:
    recorded = {"a": {"b": [1, 2.0]}, "c": "x", "d": 3}
    assert list(differences(recorded, {"a": {"b": [1, 2.00001]}, "c": "x", "d": 3, "new": 0}, 1e-4)) == []
    assert list(differences(recorded, {"a": {"b": [1, 2.1]}, "c": "y"}, 1e-4)) == [
        *("[a][b][1] is 2.1; it was 2.0", "[c] is 'y'; it was 'x'", "[d] is lost; it was 3"),
    ]
