"""The figure of a study tells its rows apart."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from vidtl.config import ExperimentConfig
from vidtl.config.study import StudyRow
from vidtl.studies.cost import Cost
from vidtl.studies.results import RowResult
from vidtl.studies.runs import RunResult
from vidtl.visualize import study

RUN = RunResult(
    value=0.5, interval=None, device="CPU", precision="no", torch="2.11.0", finished="2026-11-22", figures=None
)


@pytest.mark.parametrize("with_runs", [True, False], ids=["measured", "published"])
def test_every_row_has_a_style_of_its_own(monkeypatch: pytest.MonkeyPatch, with_runs: bool) -> None:
    """Also where there are more rows than colours."""
    drawn: list[Figure] = []
    monkeypatch.setattr(study, "save_figure", lambda figure, path: drawn.append(figure))
    rows = [
        RowResult(
            row=StudyRow(name=f"row {number}", options={}, seeds=[0], published=0.4),
            config=ExperimentConfig(),
            cost=Cost(parameters=1, multiply_adds=1, multiply_add_ratio=1, time_ratio=1, step_memory_bytes=None),
            runs={0: RUN} if with_runs else {},
        )
        for number in range(13)
    ]
    study.draw_study(rows, "title", "top1", Path("unused.png"))
    handles, labels = drawn[0].axes[0].get_legend_handles_labels()
    assert labels == [f"row {number} ({int(with_runs)})" for number in range(13)] + ["published"]
    assert len({(handle.get_marker(), handle.get_color()) for handle in handles}) == 14
