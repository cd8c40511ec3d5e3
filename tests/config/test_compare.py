"""Effects of settings, and comparison with a record."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from study_table import deciding_settings

from tests.environment import REPOSITORY
from vidtl.config import ClipConfig, ExperimentConfig, TrainingConfig
from vidtl.config.compare import EFFECTS, differences, settings_of
from vidtl.config.load import leaves
from vidtl.evaluation.provenance import NAMED_ELSEWHERE

TODAY = {
    "resume": set(settings_of(ExperimentConfig(), ["training"])),
    "evaluation": set(settings_of(ExperimentConfig(), ["scores", "rounding"])),
    "folder": set(settings_of(ExperimentConfig(), ["scores"])) - set(NAMED_ELSEWHERE),
    "study": set(deciding_settings(ExperimentConfig())),
}
"""Settings that must be equal for each purpose."""

DELIBERATE = {
    ("data.max_unreadable_share", "evaluation"),  # only training substitutes
    ("training.early_stop_evaluations", "study"),  # decides which step of a run is the last
}


def verdicts() -> list[tuple[str, str, bool]]:
    with (REPOSITORY / "docs/renames.csv").open() as stream:
        renames = {row["old"]: row["new"] for row in csv.DictReader(stream) if row["kind"] == "key"}
    with (Path(__file__).parent / "old_verdicts.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 142
    return [
        (key, purpose, row[purpose] == "1")
        for row in rows
        for key in renames.get(row["key"], row["key"]).split(";")
        if key in EFFECTS
        for purpose in TODAY
        if (key, purpose) not in DELIBERATE
    ]


def test_effects_of_all_settings_give_the_verdicts_of_the_first_edition() -> None:
    assert [key for key, leaf in leaves(ExperimentConfig).items() if not leaf.affects] == []
    assert [(key, purpose) for key, purpose, old in verdicts() if (key in TODAY[purpose]) != old] == []
    assert len(verdicts()) > 4 * 80


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({}, []),
        ({"training.batch_size": 1, "clip.stride": 3}, [("clip.stride", 3, 2), ("training.batch_size", 1, 64)]),
        ({"clip.mean": [0.5, 0.5, 0.5], "training.log_every_steps": 7, "evaluation.fusion": "max"}, []),
        ({"clip.removed": 1}, [("clip.removed", 1, "(absent)")]),
        ({"data.worker_timeout_s": 9.0, "training.class_weights": "none"}, []),
        ({"training.class_weights": "balanced"}, [("training.class_weights", "balanced", "(absent)")]),
    ],
)
def test_differences_in_the_order_of_the_sections(recorded: dict[str, object], expected: list[object]) -> None:
    assert differences(recorded, ExperimentConfig(), ["training"]) == expected


@pytest.mark.parametrize("key", ["data.dataset", "data.root", "data.manifest", "training.init_from"])
def test_two_paths_of_one_place_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    section, name = key.split(".")
    config = replace(ExperimentConfig(), **{section: replace(getattr(ExperimentConfig(), section), **{name: "a/b"})})
    for same in ("a/b", "./a/b/", "c/../a/b", str(tmp_path / "a/b"), "link"):
        assert differences({key: same}, config, EFFECTS[key]) == []
    for other in ("c/b", str(tmp_path / "c/b"), "b", "", "auto", None):
        assert differences({key: other}, config, EFFECTS[key]) == [(key, other, "a/b")]


def test_missing_settings_count_as_the_default() -> None:
    config = replace(ExperimentConfig(), clip=ClipConfig(stride=5), training=TrainingConfig(seed=3))
    assert differences({}, config, ["training"]) == [("clip.stride", 2, 5), ("training.seed", 0, 3)]
    assert differences({}, config, ["rounding"]) == []
