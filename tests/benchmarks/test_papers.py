"""Counts of the papers' models beside the published figures; see also tests/models/test_complexity.py."""

import json
from pathlib import Path

import pytest

from benchmarks.papers import deviation, main, published_models
from tests.environment import RunMain


def test_rows_of_a_table_are_counted_and_written(run_main: RunMain, tmp_path: Path) -> None:
    output, _ = run_main(main, "mini_vit", "--output", tmp_path / "rows.json")
    rows = {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert rows.keys() == {row.name for row in published_models("mini_vit")}
    assert all(name in output for name in rows)
    assert (rows["mini-ViT 8at3"]["parameters"], rows["mini-ViT 8at3"]["gmacs"]) == (1_355_850, 0.0153)


@pytest.mark.parametrize(
    ("published", "ours", "expected"),
    [
        (None, 1.0, ("", "")),
        (4.8, 4.76, ("4.8", "rounding")),
        (4.8, 4.7, ("4.8", "+2.1%")),
        (1446, 1446.4, ("1446", "rounding")),
    ],
)
def test_deviations_beyond_rounding(published: float | None, ours: float, expected: tuple[str, str]) -> None:
    assert deviation(published, ours) == expected
