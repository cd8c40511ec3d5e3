"""The figure of a study tells its rows apart."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.studies.made_row import RUN, made_row
from vidtl.visualize import study


@pytest.mark.parametrize("with_runs", [True, False], ids=["measured", "published"])
def test_every_row_has_a_style_of_its_own(monkeypatch: pytest.MonkeyPatch, with_runs: bool) -> None:
    """Also where there are more rows than colours."""
    drawn: list[Figure] = []
    monkeypatch.setattr(study, "save_figure", lambda figure, path: drawn.append(figure))
    runs = {0: RUN} if with_runs else {}
    rows = [made_row(runs, f"row {number}", published=0.4) for number in range(13)]
    study.draw_study(rows, "title", "top1", Path("unused.png"))
    handles, labels = drawn[0].axes[0].get_legend_handles_labels()
    assert labels == [f"row {number} ({int(with_runs)})" for number in range(13)] + ["published"]
    assert len({(handle.get_marker(), handle.get_color()) for handle in handles}) == 14
