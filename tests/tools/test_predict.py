"""Prediction: scores of an evaluation to the bit, any file names, every file in the output."""

import csv
import json
import shlex
import shutil
import subprocess
import sys

import eval as evaluation
import numpy as np
import predict as prediction
import profile_model
import pytest
import torch
from PIL import Image
from scipy.special import expit, softmax
from toy_clip import MOTIONS

import vidtl
from tests.environment import ENVIRONMENT, REPOSITORY
from tests.evaluation.prediction_table import read_predictions
from tests.refusals import refused
from vidtl.annotations.video_files import find_videos
from vidtl.config import ClipConfig, ModelConfig
from vidtl.evaluation.predict import PredictionSettings, predict
from vidtl.models import VideoModel, build_model

HERE = ("--data.num_workers", "0")
HOSTILE = "red\x1b[31m.mp4"


@pytest.fixture(scope="module")
def model(random_model, tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("single"), multi_label=False, class_names=MOTIONS)


@pytest.fixture(scope="module")
def multi_label_model(random_model, tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("multi"), multi_label=True, class_names=MOTIONS)


@pytest.fixture
def folder(toy, tmp_path):
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
def test_scores_are_those_of_an_evaluation_to_the_bit(run_main, request, tmp_path, protocol, suffix):
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
        assert record["duration_s"] in [pytest.approx(record["frames"] / rate, abs=1e-3) for rate in (12, 15)]
        total = sum(each["probability"] for each in record["scores"])
        assert (total == pytest.approx(1, abs=1e-3)) != bool(suffix)


def test_a_folder_is_walked_and_every_unreadable_file_is_named(run_main, model, folder):
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


def test_the_table_is_aligned_and_cannot_move_a_cursor(run_main, model, folder):
    output, _ = run_main(prediction.main, folder, "--checkpoint", model, *HERE, code=4)
    broken, hostile, nameless = output.splitlines()
    assert "\x1b" not in output
    assert "red\\x1b[31m.mp4" in hostile
    assert hostile.index("24 frames") == nameless.index("24 frames") == broken.index("unreadable: ")
    assert hostile.count("%") == prediction.TOP_K


def test_rows_for_a_spreadsheet_have_no_formulas(run_main, random_model, folder, monkeypatch):
    names = ("@formula", *MOTIONS[1:])
    model = random_model(folder / "model", multi_label=False, class_names=names)
    monkeypatch.chdir(folder)
    shutil.copy("below/nameless", "=1+1.mp4")
    options = ["--checkpoint", model, "--csv", "--top_k", "0", *HERE]
    output, _ = run_main(prediction.main, "=1+1.mp4", "broken.mp4", HOSTILE, *options, code=4)
    header, formula, broken, hostile = csv.reader(output.splitlines())
    assert [len(row) for row in (header, formula, broken, hostile)] == [2 + 2 * len(MOTIONS)] * 4
    assert header[:6] == ["path", "reason", "class_1", "probability_1", "class_2", "probability_2"]
    assert formula[:2] == ["'=1+1.mp4", ""]
    assert sorted(formula[2::2]) == sorted(["'@formula", *MOTIONS[1:]])
    chances = list(map(float, formula[3::2]))
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-3)
    assert (broken[0], set(broken[2:])) == ("broken.mp4", {""})
    assert hostile[0] == "red\\x1b[31m.mp4"


@pytest.mark.parametrize("suffix", ["", "_multilabel"])
def test_a_calibration_decides_probabilities_and_classes(run_main, request, tmp_path, suffix):
    saved, root = map(request.getfixturevalue, ("multi_label_model" if suffix else "model", f"toy{suffix}"))
    model = shutil.copytree(saved, tmp_path / "model")
    options = ["--checkpoint", model, *HERE]
    data = ["--data.dataset", f"toy{suffix}", "--data.root", root, "--evaluation.protocol", "center"]
    output, _ = run_main(evaluation.main, *options, *data, "--html", "false", "--calibrate")
    assert output.splitlines()[-1].startswith(f"calibration  {model / 'calibration.json'}: temperature ")
    fitted = json.loads((model / "calibration.json").read_text())
    everything, errors = run_main(prediction.main, root / "videos/val", *options, "--json", "--threshold", "0")
    chosen, _ = run_main(prediction.main, root / "videos/val", *options, "--json")
    assert f"temperature {fitted['temperature']:.3g}" in errors
    for of_all, of_chosen in zip(everything.splitlines(), chosen.splitlines(), strict=True):
        names, printed, scores_K = zip(*(each.values() for each in json.loads(of_all)["scores"]), strict=True)
        chances_K = (expit if suffix else softmax)(np.array(scores_K) / fitted["temperature"])
        assert printed == pytest.approx(chances_K, abs=6e-5)
        above = [n for n, chance in zip(names, chances_K, strict=True) if chance >= fitted["thresholds"].get(n, 0)]
        assert [each["class"] for each in json.loads(of_chosen)["scores"]] == above[: None if suffix else 5]


def test_a_threshold_selects_any_number_of_classes(run_main, multi_label_model, folder):
    options = [folder / "below", "--checkpoint", multi_label_model, "--json", *HERE]
    everything, _ = run_main(prediction.main, *options, "--threshold", "0")
    scores = json.loads(everything)["scores"]
    assert len(scores) == len(MOTIONS)
    cut = (scores[2]["probability"] + scores[3]["probability"]) / 2
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
        ([], ("VIDEO", "--submission")),
        (["a.mp4", "--submission", "x"], ("--submission", "videos")),
        (["--submission", "."], ("--submission", "'.'")),
        (["--submission", "x", "--top_k", "3"], ("--submission", "top_k")),
        (["--submission", "x", "--data.eval_split", "vla", "--data.dataset", "toy"], ("'vla'", "'val'")),
        (["below", "--gap", "1"], ("--gap", "--timeline")),
        (["below", "--timeline", "--gap", "-1"], ("--gap", "-1")),
        (["below", "--timeline", "--hop", "8 frogs"], ("--hop", "8 frogs")),
        (["below", "--timeline", "--top_k", "2"], ("--top_k", "--overlay")),
        (["below", "--timeline", "--overlay", "out.avi"], ("--overlay", "out.avi", ".mp4")),
        ([".", "--timeline", "--overlay", "out.mp4"], ("--overlay", "3 videos")),
        (["below", "--timeline", "--evaluation.protocol", "vivit_4x3"], ("--evaluation.protocol",)),
        (["below", "--timeline", "--submission", "out.csv"], ("--submission",)),
    ],
)
def test_mistakes(run_main, model, folder, monkeypatch, options, named):
    monkeypatch.chdir(folder)
    output, _ = run_main(prediction.main, *options, "--checkpoint", model, *HERE, refused=named)
    assert output == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("target", "code"), [("| true", 141), ("> /dev/full", 2), ("> /dev/null", 4)])
def test_output_that_nobody_takes_ends_without_a_traceback(model, folder, unbuffered, target, code):
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
def test_names_that_a_terminal_lacks_are_escaped(model, toy, tmp_path, encoding):
    video = shutil.copy(next((toy / "videos/val").iterdir()), tmp_path / "ビデオ.mp4")
    command = [sys.executable, "tools/predict.py", str(video), "--checkpoint", str(model), *HERE]
    output = subprocess.check_output(command, cwd=REPOSITORY, env={**ENVIRONMENT, "PYTHONIOENCODING": encoding})
    assert rb"\u30d3\u30c7\u30aa.mp4" in output


def test_a_loaded_clip_is_what_predict_feeds(model, folder, toy):
    network = VideoModel.from_pretrained(str(model))
    frames = folder / "below/frames"
    frames.mkdir()
    for number in range(12):
        Image.new("RGB", (50, 40), (20 * number, 99, 0)).save(frames / f"{number:03d}.png")
    assert [video.kind for video in find_videos([frames]).videos] == ["frames"]
    assert [video.kind for video in find_videos([frames], image_model=True).videos] == ["image"] * 12
    (unread,) = predict(network, find_videos([frames]).videos)
    assert "--frame_rate" in unread.reason
    assert unread.best() == []
    fed: list[tuple[torch.Tensor, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: fed.append(inputs))
    for path in (folder / HOSTILE, folder / "cover.png", frames):
        (prediction,) = predict(network, find_videos([path]).videos, PredictionSettings(frame_rate=6))
        assert prediction.reason == ""
        clip, *timesteps = fed.pop()  # of a still, equal timesteps are passed once
        clip = clip[timesteps[0][0]].flatten(0, 1)[None] if timesteps else clip
        assert torch.equal(vidtl.load_clip(str(path), network, frame_rate=6), clip)
    assert (prediction.num_frames, prediction.duration_s, len(prediction.best())) == (12, 2.0, len(MOTIONS))
    (folder / "two").mkdir()
    for name in "ab":
        shutil.copy(folder / HOSTILE, folder / f"two/{name}.mp4")
    broken = folder / "broken.mp4"
    for path, named in ((broken, ()), (folder / "two", (2,)), (frames, ("frame_rate",)), (folder / "no", ())):
        with refused(path, *named):
            vidtl.load_clip(path, network)


def test_a_model_with_background_serves_every_tool(run_main, random_model, toy, tmp_path):
    clip = ClipConfig(num_frames=8, frame_size=(32, 32), short_side=0, background=True, std=(1.0, 1.0, 1.0))
    size = ModelConfig(size="Ti", depth=3, temporal_depth=1, tubelet=(4, 8, 8))
    folder = random_model(tmp_path / "model", model=build_model(size, clip, 8), class_names=MOTIONS)
    video, given = min((toy / "videos/val").iterdir()), ["--checkpoint", folder, *HERE]
    assert "moving" in run_main(prediction.main, video, *given, "--timeline", "--hop", "4 frames")[0]
    data = ["--data.dataset", "toy", "--data.root", toy, "--evaluation.protocol", "center_4flips"]
    run_main(evaluation.main, *given, *data, "--output_dir", tmp_path)  # and its page with token maps
    assert json.loads((tmp_path / "val-center_4flips/metrics.json").read_text())["num_views"] == 4
    run_main(profile_model.main, "--pretrained", folder)
