"""What a line of the table says of the runs in it."""

from dataclasses import replace

import pytest

from vidtl.config import ExperimentConfig
from vidtl.config.study import StudyRow
from vidtl.studies.cost import Cost
from vidtl.studies.results import RowResult
from vidtl.studies.runs import RunFigures, RunResult

FIGURES = RunFigures(clips_per_s=10, data_wait_share=0.25, peak_memory_bytes=7, on_gpu=False)
RUN = RunResult(
    value=0.5, interval=None, device="CPU", precision="no", torch="2.11.0", finished="2026-11-22", figures=FIGURES
)
FAST = replace(RUN, figures=replace(FIGURES, clips_per_s=30))


def row_of(*runs: RunResult) -> RowResult:
    return RowResult(
        row=StudyRow(name="row", options={}, seeds=[0, 1]),
        config=ExperimentConfig(),
        cost=Cost(parameters=1, multiply_adds=1, multiply_add_ratio=1, time_ratio=1, step_memory_bytes=None),
        runs=dict(enumerate(runs)),
    )


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
