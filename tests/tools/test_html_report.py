"""The page that `tools/eval.py` leaves beside the metrics, and the tool that writes it again."""

import eval as evaluation
import pytest
import report

from tests.evaluation.made_result import made_report, made_result
from vidtl.data.toy_clip import MOTIONS
from vidtl.models import VideoModel, save_model_directory


@pytest.fixture
def options(untrained_model, toy, tmp_path):
    """Options of an evaluation of five videos by a model whose classes are in another order than the data's."""
    model = VideoModel.from_pretrained(str(untrained_model))
    model.class_names = MOTIONS[::-1]
    save_model_directory(model, tmp_path / "model")
    data = ["--data.dataset", "toy", "--data.root", toy, "--data.num_workers", "0", "--evaluation.max_videos", "5"]
    return ["--checkpoint", tmp_path / "model", *data, "--output_dir", tmp_path / "report"]


def test_a_page_can_be_written_again(run_main, options, tmp_path):
    output, errors = run_main(evaluation.main, *options)
    (page,) = tmp_path.glob("report/*/report.html")
    assert str(page) in output
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 5
    assert "5 videos annotated, 5 scored" in text
    page.unlink()
    output, errors = run_main(report.main, page.parent)
    assert errors == ""
    assert page.read_text() == text


def test_a_failure_to_draw_costs_the_pictures_only(run_main, options, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(evaluation, "draw_examples", fail)
    _, errors = run_main(evaluation.main, *options)
    assert "RuntimeError: out of memory" in errors
    (page,) = tmp_path.glob("report/*/report.html")
    assert "data:image/webp" not in page.read_text()


def test_the_page_can_be_left_out(run_main, options, tmp_path):
    earlier = made_report(made_result(3, ["one", "two"]), tmp_path / "report/val-center-first-5")
    (earlier.parent / "metrics.json").unlink()
    output, _ = run_main(evaluation.main, *options, "--html", "false")
    assert "report.html" not in output
    assert (earlier.parent / "metrics.json").exists()
    assert not earlier.exists()
    assert not list((earlier.parent / "examples").iterdir())
