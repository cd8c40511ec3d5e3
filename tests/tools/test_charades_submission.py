"""A submission file is judged from the command line, without a model, as the original judges it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from charades_submission import read_annotations

from vidtl.metrics.charades import match_submission, official_scores, write_submission

RunMain = Callable[..., tuple[int, str, str]]

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\r\n"


def annotate(path: Path, num_videos: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """A file with the columns and line ends of the official ones; every 30th video has no action."""
    rng = np.random.default_rng(seed)
    targets = rng.random((num_videos, 157)) < 0.055
    targets[::30] = False
    targets[1] = True
    ids = [f"V{i:04d}" for i in range(num_videos)]
    with path.open("w", newline="") as file:
        file.write(HEADER)
        for video, row in zip(ids, targets, strict=True):
            actions = ";".join(f"c{k:03d} 0.00 {k}.50" for k in np.flatnonzero(row))
            file.write(f'{video},HR43,Kitchen,6,7,Yes,"A person, walking",a;b,"walks; sits",{actions},30.5\r\n')
    return ids, targets


@pytest.fixture
def judge(run_main: RunMain) -> RunMain:
    import eval as evaluation

    return lambda *options: run_main(evaluation.main, *options)


def test_the_figures_are_the_official_ones(judge: RunMain, tmp_path: Path) -> None:
    ids, targets = annotate(tmp_path / "test.csv", 1863)
    assert read_annotations(tmp_path / "test.csv", 157)[0] == ids
    np.testing.assert_array_equal(read_annotations(tmp_path / "test.csv", 157)[1], targets)
    scores = np.random.default_rng(1).normal(0, 1, targets.shape) + targets
    write_submission(tmp_path / "scores.txt", ids, scores)
    options = ("--charades-submission", tmp_path / "scores.txt", "--annotations", tmp_path / "test.csv")
    code, output, errors = judge(*options)
    assert (code, errors) == (0, "")
    expected = official_scores(scores, targets)
    assert f"mAP           {expected.mean_ap:.6f}" in output
    assert f"mAP weighted  {expected.weighted_ap:.6f}" in output
    assert "1863 videos, 1800 of them with actions" in output
    assert "missing" not in output


def test_what_is_odd_about_a_file_is_said(judge: RunMain, tmp_path: Path) -> None:
    ids, targets = annotate(tmp_path / "test.csv", 60)
    scores = np.random.default_rng(2).random(targets.shape)
    write_submission(tmp_path / "scores.txt", [*ids[5:], "stranger\x1b[31m", ids[7]], np.r_[scores[5:], scores[:2]])
    code, output, _ = judge("--charades-submission", tmp_path / "scores.txt", "--annotations", tmp_path / "test.csv")
    assert code == 0
    assert "4 videos with actions are missing, which costs their actions: V0001, V0002, V0003, V0004" in output
    assert "1 videos are not in the annotation and are ignored: stranger\\x1b[31m" in output
    assert "1 lines are replaced by a later line of the same video" in output
    table = np.full(targets.shape, -np.inf)
    table[5:] = scores[5:]
    table[7] = scores[1]
    assert f"mAP           {official_scores(table, targets).mean_ap:.6f}" in output


@pytest.mark.parametrize(
    ("line", "action", "message"),
    [
        ("V0001 1 2", "", "scores.txt:2 has 2 numbers; allowed: 157 or 158"),
        ("V0001 " + "x " * 157, "", "scores.txt:2: could not convert string to float: 'x'"),
        ("", "c157 1 2", "test.csv:62: actions has 'c157 1 2'; allowed: 'c000 <start> <end>' to 'c156'"),
        ("", "kitchen", "test.csv:62: actions has 'kitchen'"),
    ],
)
def test_mistakes_take_one_line(judge: RunMain, tmp_path: Path, line: str, action: str, message: str) -> None:
    ids, targets = annotate(tmp_path / "test.csv", 60)
    if action:
        with (tmp_path / "test.csv").open("a") as file:
            file.write(f"last,,,,,,,,,{action},1\r\n")
    write_submission(tmp_path / "scores.txt", ids[:1], targets[:1] * 1.0)
    with (tmp_path / "scores.txt").open("a") as file:
        file.write(line + "\n")
    code, output, errors = judge(
        "--charades-submission", tmp_path / "scores.txt", "--annotations", tmp_path / "test.csv"
    )
    assert (code, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert message in errors


def test_an_evaluation_leaves_a_file_that_scores_as_its_metrics_say(
    run_main: RunMain, untrained_model: Path, toy_multilabel: Path, tmp_path: Path
) -> None:
    import eval as evaluation

    data = ["--data.dataset", "toy_multilabel", "--data.root", toy_multilabel, "--data.num_workers", "0"]
    options = ["--checkpoint", untrained_model, *data, "--html", "false", "--output_dir", tmp_path]
    code, output, errors = run_main(evaluation.main, *options)
    assert code == 0, errors
    assert "charades_submission.txt" in output
    ids, targets = read_annotations(toy_multilabel / "val.csv", 8)
    submission = match_submission(tmp_path / "val-center/charades_submission.txt", ids, targets)
    metrics = json.loads((tmp_path / "val-center/metrics.json").read_text())["metrics"]
    assert official_scores(submission.scores, targets).mean_ap == metrics["mAP_charades"]
    assert 0 < metrics["f1_macro"] < 1
    assert not submission.missing_ids


def test_an_id_that_no_submission_can_hold_costs_neither_files_nor_summary(
    run_main: RunMain, untrained_model: Path, toy_multilabel: Path, tmp_path: Path
) -> None:
    import eval as evaluation

    copy = Path(shutil.copytree(toy_multilabel, tmp_path / "copy"))
    video = sorted((copy / "videos/val").iterdir())[0]
    video.rename(video.with_stem("one two"))
    annotation = copy / "val.csv"
    annotation.write_text(annotation.read_text().replace(video.stem, "one two"))
    data = ["--data.dataset", "toy_multilabel", "--data.root", copy, "--data.num_workers", "0"]
    options = ["--checkpoint", untrained_model, *data, "--html", "false", "--output_dir", tmp_path]
    code, output, errors = run_main(evaluation.main, *options)
    assert code == 2
    assert "video id 'one two' cannot stand in" in errors
    assert "mAP_charades" in output
    assert (tmp_path / "val-center/metrics.json").is_file()


def test_wrong_options_take_one_line(judge: RunMain, tmp_path: Path) -> None:
    for options, message in [
        (("--charades-submission", "none.txt", "--annotations", "none.csv"), "none.csv is no file"),
        (("--charades-submission", "none.txt"), "--annotations"),
        (("--annotations", "none.csv"), "--checkpoint"),
        (("--charades-submission", "a", "--annotations", "b", "--checkpoint", "c"), "--checkpoint"),
    ]:
        code, output, errors = judge(*options)
        assert (code, output, len(errors.splitlines())) == (2, "", 1)
        assert message in errors
