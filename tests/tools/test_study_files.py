"""The studies in `configs/studies`: every row is an experiment of its own, and its model can be built."""

from pathlib import Path

import pytest
import study as study_tool
import torch

from tests.environment import REPOSITORY
from vidtl.config.load import load
from vidtl.config.study import StudyConfig
from vidtl.models import build_model
from vidtl.models.complexity import count_parameters

STUDIES = sorted((REPOSITORY / "configs/studies").glob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_rows_differ_and_build(file: Path, tmp_path: Path) -> None:
    study = load(file, StudyConfig)
    runs = list(study_tool.planned_runs(study, file.parent / study.experiment, tmp_path))
    assert len(runs) == sum(len(row.seeds) for row in study.rows)
    firsts = [next(run.config for run in runs if run.row is row) for row in study.rows]
    assert all(one != other for number, one in enumerate(firsts) for other in firsts[:number])
    with torch.device("meta"):
        assert all(count_parameters(build_model(config.model, config.clip, 8)) > 0 for config in firsts)


def test_the_t2t_row_differs_from_the_studys_model_in_its_tokeniser_alone(tmp_path: Path) -> None:
    (file,) = (file for file in STUDIES if file.stem == "cifar10_token_learner")
    study = load(file, StudyConfig)
    runs = study_tool.planned_runs(study, file.parent / study.experiment, tmp_path)
    models = {run.row.name: run.config.model.mini_vit for run in runs}
    ours, theirs = models["T2T tokeniser, v1 8 tokens"], models["v1 8 tokens"]
    assert (ours.tokeniser, theirs.tokeniser) == ("t2t_performer", "patch")
    assert {**vars(ours), "tokeniser": "patch"} == vars(theirs)
