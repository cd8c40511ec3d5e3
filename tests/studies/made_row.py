"""A run and a row of a study as a table would have them, of made-up figures."""

from vidtl.config import ExperimentConfig
from vidtl.config.study import StudyRow
from vidtl.studies.cost import Cost
from vidtl.studies.results import RowResult
from vidtl.studies.runs import RunFigures, RunResult

FIGURES = RunFigures(clips_per_s=12.5, data_wait_share=0.25, peak_memory_bytes=7, on_gpu=False)
RUN = RunResult(
    value=0.5,
    interval={"low": 0.4, "high": 0.6},
    device="CPU",
    precision="fp32",
    torch="2.11.0",
    finished="2026-11-22",
    figures=FIGURES,
)


def made_row(
    runs: dict[int, RunResult],
    name: str = "row",
    config: ExperimentConfig | None = None,
    published: float | None = None,
) -> RowResult:
    """Of seeds 0 and 1, of which `runs` are finished."""
    return RowResult(
        row=StudyRow(name=name, options={}, seeds=[0, 1], published=published),
        config=config or ExperimentConfig(),
        cost=Cost(parameters=1, multiply_adds=1, multiply_add_ratio=1, time_ratio=1, step_memory_bytes=None),
        runs=runs,
    )
