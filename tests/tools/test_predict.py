"""Prediction: scores of an evaluation to the bit, any file names, every file in the output."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import eval as evaluation
import numpy as np
import predict as prediction
import pytest
from PIL import Image

from tests.environment import ENVIRONMENT, REPOSITORY, RunMain
from tests.evaluation.prediction_table import read_predictions
from tests.refusals import assert_refusal
from vidtl.annotations.video_files import find_videos
from vidtl.data.toy_clip import MOTIONS
from vidtl.evaluation.predict import PredictionSettings, predict
from vidtl.models import VideoModel

HERE = ("--data.num_workers", "0")
HOSTILE = "red\x1b[31m.mp4"


@pytest.fixture(scope="module")
def model(random_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("single"), multi_label=False, class_names=MOTIONS)


@pytest.fixture(scope="module")
def multi_label_model(random_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("multi"), multi_label=True, class_names=MOTIONS)


@pytest.fixture
def folder(toy: Path, tmp_path: Path) -> Path:
    """Two videos, one of them without a suffix; what only looks like one; and files that are none."""
    videos = sorted((toy / "videos/val").iterdir())
    (tmp_path / "in/below/.hidden").mkdir(parents=True)
    shutil.copy(videos[0], tmp_path / "in/below/nameless")
    shutil.copy(videos[1], tmp_path / "in" / HOSTILE)
    shutil.copy(videos[2], tmp_path / "in/below/.hidden/not.mp4")
    (tmp_path / "in/broken.mp4").write_bytes(videos[2].read_bytes()[:300])
    (tmp_path / "in/readme.txt").write_text("none of them")
    Image.new("RGB", (40, 40)).save(tmp_path / "in/cover.png")
    return tmp_path / "in"


@pytest.mark.parametrize(("protocol", "suffix"), [("center", ""), ("vivit_4x3", "_multilabel")])
def test_scores_are_those_of_an_evaluation_to_the_bit(
    run_main: RunMain, request: pytest.FixtureRequest, tmp_path: Path, protocol: str, suffix: str
) -> None:
    model, root = map(request.getfixturevalue, ("multi_label_model" if suffix else "model", f"toy{suffix}"))
    options = ["--checkpoint", model, "--evaluation.protocol", protocol, "--evaluation.batch_size", "10", *HERE]
    data = ["--data.dataset", f"toy{suffix}", "--data.root", root, "--output_dir", tmp_path, "--html", "false"]
    run_main(evaluation.main, *options, *data)
    table = read_predictions(tmp_path / f"val-{protocol}/predictions.csv")

    files = [root / path for path in table.paths]
    output, _ = run_main(prediction.main, *files, *options, "--json", "--top_k", "0")
    records = [json.loads(line) for line in output.splitlines()]
    assert [record["path"] for record in records] == list(map(str, files))
    for record, scores_K in zip(records, table.scores, strict=True):
        found = {each["class"]: each["score"] for each in record["scores"]}
        assert [found[name] for name in table.class_names] == scores_K.tolist()
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert record["duration_s"] in (pytest.approx(record["frames"] / 12), pytest.approx(record["frames"] / 15))
        total = sum(each["probability"] for each in record["scores"])
        assert (total == pytest.approx(1)) != bool(suffix)


def test_a_folder_is_walked_and_every_unreadable_file_is_named(run_main: RunMain, model: Path, folder: Path) -> None:
    options = ["--checkpoint", model, "--json", "--top_k", "2", *HERE]
    output, errors = run_main(prediction.main, folder, *options, code=4)
    assert output.isascii()
    records = {record["path"]: record for record in map(json.loads, output.splitlines())}
    assert list(records) == [str(folder / name) for name in ("broken.mp4", HOSTILE, "below/nameless")]
    broken = records.pop(str(folder / "broken.mp4"))
    assert broken["reason"]
    assert broken["scores"] is broken["frames"] is broken["duration_s"] is None
    assert [(record["reason"], len(record["scores"])) for record in records.values()] == [(None, 2)] * 2
    assert "2 files are neither videos nor images" in errors
    assert "1 of 3 videos could not be read" in errors


def test_the_table_is_aligned_and_cannot_move_a_cursor(run_main: RunMain, model: Path, folder: Path) -> None:
    output, _ = run_main(prediction.main, folder, "--checkpoint", model, *HERE, code=4)
    broken, hostile, nameless = output.splitlines()
    assert "\x1b" not in output
    assert "red\\x1b[31m.mp4" in hostile
    assert hostile.index("24 frames") == nameless.index("24 frames") == broken.index("unreadable: ")
    assert hostile.count("%") == prediction.TOP_K


def test_a_threshold_selects_any_number_of_classes(run_main: RunMain, multi_label_model: Path, folder: Path) -> None:
    options = [folder / "below", "--checkpoint", multi_label_model, "--json", *HERE]
    everything, _ = run_main(prediction.main, *options, "--threshold", "0")
    scores = json.loads(everything)["scores"]
    assert len(scores) == len(MOTIONS)
    cut = scores[2]["probability"]
    output, _ = run_main(prediction.main, *options, "--threshold", repr(cut))
    assert json.loads(output)["scores"] == scores[:3]
    output, _ = run_main(prediction.main, *options, "--threshold", repr(cut), "--top_k", "1")
    assert json.loads(output)["scores"] == scores[:1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["brokn.mp4"], ("'brokn.mp4'", "'broken.mp4'")),
        (["below", "https://a.b/c.mp4"], ("'https://a.b/c.mp4'", "URL")),
        (["below", "--top_k", "two"], ("--top_k", "'two'", "int")),
        (["below", "--top_k", "-1"], ("--top_k", -1)),
        (["below", "--threshold", "2"], ("--threshold", 2.0)),
        (["below", "--frame_rate", "0"], ("--frame_rate", 0, "above 0")),
        (["below", "--evaluation.protocol", "centre"], ("'centre'", "'center'")),
    ],
)
def test_mistakes(run_main: RunMain, model: Path, folder: Path, options: list[str], named: list[object]) -> None:
    first, *others = options
    output, errors = run_main(prediction.main, folder / first, "--checkpoint", model, *HERE, *others, code=2)
    assert output == ""
    assert_refusal(errors.splitlines()[-1], *named)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("target", "code"), [("| true", 141), ("> /dev/full", 2), ("> /dev/null", 4)])
def test_output_that_nobody_takes_ends_without_a_traceback(
    model: Path, folder: Path, unbuffered: str, target: str, code: int
) -> None:
    command = shlex.join([sys.executable, "tools/predict.py", str(folder), "--checkpoint", str(model), "--json", *HERE])
    done = subprocess.run(
        ["bash", "-c", f"{command} {target}; exit ${{PIPESTATUS[0]}}"],
        cwd=REPOSITORY,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
    )
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert (b"error: " in done.stderr) == (code == 2)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_a_terminal_lacks_are_escaped(model: Path, toy: Path, tmp_path: Path, encoding: str) -> None:
    video = shutil.copy(next((toy / "videos/val").iterdir()), tmp_path / "ビデオ.mp4")
    command = [sys.executable, "tools/predict.py", str(video), "--checkpoint", str(model), *HERE]
    output = subprocess.check_output(command, cwd=REPOSITORY, env={**ENVIRONMENT, "PYTHONIOENCODING": encoding})
    assert rb"\u30d3\u30c7\u30aa.mp4" in output


def test_images_are_frames_of_a_video_once_their_rate_is_known(model: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 13):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(frames / f"{number:03d}.png")
    network = VideoModel.from_pretrained(str(model))
    videos = find_videos([tmp_path]).videos
    assert [(video.path, video.kind) for video in videos] == [(frames, "frames")]
    (refused,) = predict(network, videos)
    assert "--frame_rate" in refused.reason
    assert refused.best() == []
    (scored,) = predict(network, videos, PredictionSettings(frame_rate=6))
    assert (scored.num_frames, scored.duration_s, scored.reason) == (12, 2.0, "")
    assert len(scored.best()) == len(MOTIONS)
    assert [video.kind for video in find_videos([tmp_path], image_model=True).videos] == ["image"] * 12
