"""The page that `tools/eval.py` leaves beside the metrics, and the tool that writes it again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from vidtl.evaluation.html import example_indices, read_evaluation, write_page

from tests.evaluation.made_page import CLIP, made_page, made_result, made_videos, tiny_model
from vidtl.evaluation.report import metrics_record, write_report
from vidtl.models.hub import save_model_directory

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
    save_model_directory(tiny_model(3), folder / "model", ("two", "one"))  # another order than the data's
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
    assert text.count("data:image/webp;base64,") == 12  # frames and tokens of the six that can be read
    assert "7 videos annotated, 6 scored" in " ".join(text.split())
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

    monkeypatch.setattr(evaluation, "draw_pictures", fail)
    code, _, errors = run_main(evaluation.main, *model_and_data, "--output_dir", tmp_path)
    assert code == 0
    assert "no pictures: RuntimeError: out of memory" in errors
    (page,) = tmp_path.glob("*/report.html")
    assert "data:image/webp" not in page.read_text()
    assert (page.parent / "metrics.json").is_file()


def test_the_page_can_be_left_out(run_main: RunMain, model_and_data: list[str], tmp_path: Path) -> None:
    import eval as evaluation

    code, output, _ = run_main(evaluation.main, *model_and_data, "--output_dir", tmp_path, "--html", "false")
    assert code == 0
    assert "report.html" not in output
    (metrics,) = tmp_path.glob("*/metrics.json")
    assert not (metrics.parent / "report.html").exists()

    made_page(made_result(3, ["one", "two"]), metrics.parent, made_videos(tmp_path, 3))
    assert list((metrics.parent / "examples").iterdir())
    code, _, _ = run_main(evaluation.main, *model_and_data, "--output_dir", tmp_path, "--html", "false")
    assert code == 0
    assert not (metrics.parent / "report.html").exists(), "the page of an earlier evaluation"
    assert not list((metrics.parent / "examples").iterdir()), "pictures of an earlier evaluation"


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_folder_read_back_gives_the_same_page(tmp_path: Path, multi_label: bool) -> None:
    names = ["=1+1", "<b>", "a|b", "\u202eturned", "none"]
    result = made_result(20, names, multi_label, unreadable=(3,))
    record = metrics_record(result)
    write_report(result, record, tmp_path)
    text = write_page(result, record, tmp_path).read_text()
    read, same_record = read_evaluation(tmp_path)
    assert example_indices(read) == example_indices(result)
    assert write_page(read, same_record, tmp_path).read_text() == text


def drop(key: str) -> Callable[[Path], None]:
    """Damage: `metrics.json` without a key."""

    def damage(folder: Path) -> None:
        record = json.loads((folder / "metrics.json").read_text())
        del record[key]
        (folder / "metrics.json").write_text(json.dumps(record))

    return damage


def replace_by(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


def rename_label(folder: Path) -> None:
    file = folder / "predictions.csv"
    file.write_text(file.read_text().replace("video 2.mp4,a,", "video 2.mp4,aa,"))


def mix_with_another(folder: Path) -> None:
    other = made_result(5, ["a", "b"])
    write_report(other, metrics_record(other), folder / "other")
    (folder / "other/metrics.json").replace(folder / "metrics.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "No such file or directory"),
        (replace_by("metrics.json", "{}"), "'annotation' is missing"),
        (replace_by("metrics.json", "[]"), "cannot be read as the metrics of an evaluation"),
        (drop("num_scored"), "'num_scored' is missing"),
        (drop("chance"), "'chance' is missing"),
        (replace_by("predictions.csv", "{}"), "cannot be read as the predictions of an evaluation"),
        (rename_label, "predictions.csv:4: true_labels has 'aa'; did you mean 'a'"),
        (mix_with_another, "are of different evaluations"),
    ],
)
def test_a_folder_that_is_no_evaluation_ends_in_one_line(
    run_main: RunMain, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    import report

    result = made_result(6, ["a", "b"])
    write_report(result, metrics_record(result), tmp_path)
    damage(tmp_path)
    code, _, errors = run_main(report.main, tmp_path)
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert str(tmp_path) in errors
    assert message in errors
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("index", ['{"0": {"fra', "[]", '{"0": {"frames": "0.webp"}}', '{"first": {}}'])
def test_a_broken_list_of_pictures_costs_the_pictures_only(run_main: RunMain, tmp_path: Path, index: str) -> None:
    import report

    result = made_result(3, ["one", "two"])
    write_report(result, metrics_record(result), tmp_path)
    page = made_page(result, tmp_path, made_videos(tmp_path, 3))
    assert "data:image/webp" in page.read_text()
    (tmp_path / "examples/examples.json").write_text(index)
    code, _, errors = run_main(report.main, tmp_path)
    assert code == 0
    assert len(errors.strip().splitlines()) == 1
    assert "examples.json cannot be read, so there are no pictures" in errors
    assert "data:image/webp" not in page.read_text()
