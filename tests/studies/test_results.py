"""What a line of the table says of the runs in it."""

from dataclasses import replace

import pytest

from tests.studies.made_row import FIGURES, RUN, made_row
from vidtl.studies.results import RowResult
from vidtl.studies.runs import RunResult

FAST = replace(RUN, figures=replace(FIGURES, clips_per_s=37.5))


def row_of(*runs: RunResult) -> RowResult:
    return made_row(dict(enumerate(runs)))


def test_clips_per_second_are_compared_where_runs_differ_in_their_variant_alone() -> None:
    assert row_of(RUN, FAST).clips_ratio(row_of(RUN)) == 2
    assert row_of(FAST).clips_ratio(row_of(RUN, replace(RUN, figures=None))) == 3


@pytest.mark.parametrize(
    ("row", "first"),
    [
        (row_of(replace(FAST, precision="bf16")), row_of(RUN)),
        (row_of(FAST), row_of(replace(RUN, device="NVIDIA H100"))),
        (row_of(FAST), row_of(RUN, replace(RUN, precision="bf16"))),
        (row_of(replace(RUN, figures=None)), row_of(RUN)),
        (row_of(RUN), row_of()),
        (row_of(), row_of()),
    ],
    ids=["precision", "device", "a mixed row", "nothing known", "no first row", "no runs"],
)
def test_other_clips_per_second_are_not(row: RowResult, first: RowResult) -> None:
    assert row.clips_ratio(first) is None
