"""The page that `tools/eval.py` leaves beside the metrics, and the tool that writes it again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.made_result import CLIP, made_report, made_result, made_videos, tiny_model
from tests.refusals import assert_refusal
from vidtl.models import save_model_directory

RunMain = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of an evaluation: an untrained model, six readable videos and one that is not."""
    folder = tmp_path_factory.mktemp("birds")
    made_videos(folder, 7)
    (folder / "2.mp4").write_bytes(b"not a video")
    rows = [f"{i}.mp4,{('one', 'two')[i % 2]},val" for i in range(7)]
    (folder / "labels.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    (folder / "dataset.yaml").write_text(
        "name: birds\ntitle: Birds\nformat: labelled_csv\nlabels: single\nprotocol: center\n"
        "splits:\n  val: {annotations: labels.csv}\ncolumns: {path: path, label: label, split: split}\n"
    )
    model = tiny_model(3)
    model.class_names = ("two", "one")  # another order than the data's
    save_model_directory(model, folder / "model")
    clip = ["--clip.num_frames", str(CLIP.num_frames), "--clip.stride", "1"]
    clip += ["--clip.frame_size", "[32,32]", "--clip.short_side", "32"]
    data = ["--data.dataset", str(folder), "--data.root", str(folder), "--data.num_workers", "0"]
    return ["--checkpoint", str(folder / "model"), *data, *clip]


def test_evaluating_leaves_a_page_with_pictures_that_can_be_written_again(
    run_main: RunMain, model_and_data: list[str], tmp_path: Path
) -> None:
    import eval as evaluation
    import report

    code, output, errors = run_main(evaluation.main, *model_and_data, "--output_dir", tmp_path)
    assert code == 0, errors
    (page,) = tmp_path.glob("*/report.html")
    assert str(page) in output
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 6  # those that can be read
    assert "7 videos annotated, 6 scored" in text
    page.unlink()
    code, output, errors = run_main(report.main, page.parent)
    assert (code, errors) == (0, "")
    assert page.read_text() == text


def test_a_failure_to_draw_costs_the_pictures_only(
    run_main: RunMain, model_and_data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import eval as evaluation

    def fail(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(evaluation, "draw_examples", fail)
    code, _, errors = run_main(evaluation.main, *model_and_data, "--output_dir", tmp_path)
    assert code == 0
    assert "no pictures: RuntimeError: out of memory" in errors
    (page,) = tmp_path.glob("*/report.html")
    assert "data:image/webp" not in page.read_text()
    assert (page.parent / "metrics.json").is_file()


def test_the_page_can_be_left_out(run_main: RunMain, model_and_data: list[str], tmp_path: Path) -> None:
    import eval as evaluation

    page = made_report(made_result(3, ["one", "two"]), tmp_path / "val-center")
    (page.parent / "metrics.json").unlink()
    code, output, _ = run_main(evaluation.main, *model_and_data, "--output_dir", tmp_path, "--html", "false")
    assert code == 0
    assert "report.html" not in output
    assert (page.parent / "metrics.json").exists()
    assert not page.exists(), "the page of an earlier evaluation"
    assert not list((page.parent / "examples").iterdir()), "examples of an earlier evaluation"


def test_a_folder_that_is_no_evaluation_ends_in_one_line(run_main: RunMain, tmp_path: Path) -> None:
    import report

    code, _, errors = run_main(report.main, tmp_path)
    assert code == 2
    assert_refusal(errors, tmp_path / "metrics.json")
