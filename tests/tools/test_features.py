"""Features are those of the model, to the byte after a kill; probes of them are models."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import eval as evaluation
import features
import numpy as np
import probe
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from toy_clip import MOTIONS

import vidtl
from tests.environment import ENVIRONMENT, REPOSITORY, wait_for
from tests.refusals import assert_refusal, refused
from vidtl.annotations.description import load_description, read_records
from vidtl.config import DataConfig
from vidtl.data.batch import prepare_input
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.data.windows import Hop, sliding_windows
from vidtl.evaluation.features import FeatureModel, load_features
from vidtl.models import VideoModel, create_model

HERE = ("--data.num_workers", "0")


@pytest.fixture(scope="module")
def model(random_model, tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("model"), multi_label=False, class_names=MOTIONS)


def command(model, folder, *options):
    return [*options, "--checkpoint", model, "--output", folder, *HERE]


def of_split(root, suffix="", split="val"):
    return ["--data.dataset", f"toy{suffix}", "--data.root", root, "--data.eval_split", split]


@pytest.mark.parametrize(("kind", "dtype"), [("pooled", "float32"), ("pooled", "float16"), ("tokens", "float32")])
def test_features_are_those_of_the_model(run_main, model, toy, tmp_path, kind, dtype):
    options = (toy / "videos/val", "--features", kind, "--dtype", dtype, "--evaluation.batch_size", 1)
    run_main(features.main, *command(model, tmp_path / "out", *options))
    values, rows, description = load_features(tmp_path / "out")
    network = VideoModel.from_pretrained(model)
    method = network.forward_features if kind == "pooled" else network.forward_tokens
    assert (values.dtype, list(values.shape[1:]), len(rows)) == (dtype, description["shape"], 16)
    for value, row in zip(values, rows, strict=True):
        clip = vidtl.load_clip(row["path"], network)
        with torch.inference_mode():
            expected = method(clip)[0]
            assert np.array_equal(value, expected.numpy().astype(dtype))
            if kind == "pooled":
                torch.testing.assert_close(network.head(expected), network(clip)[0])
    with (tmp_path / "out/index.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["row"], row["path"]) for row in table] == [(str(i), row["path"]) for i, row in enumerate(rows)]


@pytest.mark.parametrize("name", ["mini_vit", "t2t_vit_7", "x3d_xs"])
def test_every_family_has_the_input_of_its_classifier(name):
    network = create_model(name, num_classes=3).eval()
    clips = torch.randn(2, *network.clip_shape)
    torch.testing.assert_close(network.classifier()[1](network.forward_features(clips)), network(clips))
    with refused("tokens", type(network).__name__, "pooled"):
        FeatureModel(network, "tokens")


def test_a_killed_extraction_continues_with_the_same_bytes(run_main, model, toy, tmp_path):
    (tmp_path / "in").mkdir()
    for place in range(160):
        shutil.copy(sorted((toy / "videos/val").iterdir())[place % 16], tmp_path / f"in/{place:03d}.mp4")
    given = command(model, tmp_path / "killed", tmp_path / "in", "--evaluation.batch_size", 8)
    tool = [sys.executable, str(REPOSITORY / "tools/features.py"), *map(str, given)]
    with subprocess.Popen(tool, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "killed/features-00000.safetensors", process)
        process.send_signal(signal.SIGKILL)
    first = (tmp_path / "killed/features-00000.safetensors").stat()
    with refused(tmp_path / "killed", "index.csv"):
        load_features(tmp_path / "killed")
    run_main(features.main, *given)
    assert (tmp_path / "killed/features-00000.safetensors").stat().st_mtime_ns == first.st_mtime_ns
    given = command(model, tmp_path / "whole", tmp_path / "in", "--evaluation.batch_size", 8)
    run_main(features.main, *given[:-1], 2)
    written = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("killed", "whole")]
    assert written[0] == written[1]
    assert len(written[0]) == 5


def test_unreadable_videos_are_counted_and_tried_again(run_main, model, toy, tmp_path):
    videos = sorted((toy / "videos/val").iterdir())[:2]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(videos[0].read_bytes()[:300])
    shutil.copy(videos[1], tmp_path / "in/b.mp4")
    given = command(model, tmp_path / "out", tmp_path / "in")
    run_main(features.main, *given, code=4)
    values, rows, _ = load_features(tmp_path / "out")
    assert [bool(row["reason"]) for row in rows] == np.isnan(values).all(axis=1).tolist() == [True, False]
    shutil.copy(videos[0], tmp_path / "in/a.mp4")
    run_main(features.main, *given)
    again, rows, _ = load_features(tmp_path / "out")
    np.testing.assert_allclose(again[1], values[1], rtol=1e-4, atol=1e-5)  # of a pass with one clip more
    assert not np.isnan(again).any()


def test_what_gives_no_features_or_probes_is_refused(run_main, model, toy, tmp_path):
    video, image = sorted((toy / "videos/val").iterdir())[0], tmp_path / "image.png"
    Image.new("RGB", (40, 40)).save(image)
    run_main(features.main, *command(model, tmp_path / "out", video, image), refused=[video, image])
    for kind, parts in (("pooled", ("labels", 0)), ("tokens", ("features", "tokens", "pooled"))):
        run_main(features.main, *command(model, tmp_path / kind, video, "--features", kind))
        run_main(probe.main, tmp_path / kind, tmp_path / kind, refused=parts)
    _, errors = run_main(probe.main, tmp_path / "pooled", tmp_path / "tokens", code=2)
    assert_refusal(errors.splitlines()[-1], tmp_path / "pooled", tmp_path / "tokens", "features", "'tokens'")


def test_a_full_disk_and_another_model_cost_nothing(run_main, random_model, model, toy, tmp_path, monkeypatch):
    given = [toy / "videos/val", "--evaluation.batch_size", 8]
    monkeypatch.setattr("vidtl.evaluation.features.FILE_ROWS", 8)
    with monkeypatch.context() as full:
        written: list[Path] = []

        def save(tensors, path, metadata):
            written.append(path)
            if len(written) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save_file(tensors, path, metadata)

        full.setattr("vidtl.evaluation.features.save_file", save)
        _, errors = run_main(features.main, *command(model, tmp_path / "out", *given), code=2)
        assert_refusal(errors.splitlines()[-1], tmp_path / "out/features-00001.safetensors", os.strerror(errno.ENOSPC))
    other = random_model(tmp_path / "other", num_tokens=4)
    run_main(features.main, *command(other, tmp_path / "out", *given), refused=[tmp_path / "out", "model"])
    run_main(features.main, *command(model, tmp_path / "out", *given))
    written = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert written == [f"features-0000{number}.safetensors" for number in range(2)]


def test_windows_of_a_split_have_times_labels_and_the_features_of_their_clips(run_main, model, toy, tmp_path):
    options = (*of_split(toy), "--hop", "4 frames", "--evaluation.batch_size", 1)
    run_main(features.main, *command(model, tmp_path / "out", *options))
    values, rows, _ = load_features(tmp_path / "out")
    network, data = VideoModel.from_pretrained(model), DataConfig(root=str(toy), num_workers=0)
    videos = read_records(load_description("toy", str(toy)), "val", toy)
    windows = sliding_windows(videos, network.clip_config, data, Hop(frames=4))
    assert len(rows) == len(windows.owners) > len(videos)
    loader = EvalLoader(windows.records, get_protocol("center"), network.clip_config, data)
    for value, row, views in zip(values, rows, loader, strict=True):
        clip = prepare_input(views.pixels, torch.tensor([views.color]), network.clip_config)
        assert np.array_equal(value, network.forward_features(clip)[0].detach().numpy())
        owner = windows.owners[views.index]
        assert json.loads(row["labels"]) == [MOTIONS[k] for k in videos.labels(owner)]
        assert [row["start_s"], row["end_s"]] == windows.spans_s[views.index].round(6).tolist()


def test_neighbors_vote_as_a_plain_loop_does():
    rng = np.random.default_rng(0)
    train, values, labels = rng.normal(size=(40, 6)), rng.normal(size=(9, 6)), np.eye(3)[rng.integers(0, 3, 40)]
    found = probe.nearest_neighbors(*map(torch.from_numpy, (train, labels, values)), k=7)
    for value, votes in zip(values, found.numpy(), strict=True):
        similar = [float(value @ row / np.linalg.norm(value) / np.linalg.norm(row)) for row in train]
        nearest = sorted(range(40), key=lambda i: -similar[i])[:7]
        expected = sum(np.exp(similar[i] / 0.07) * labels[i] for i in nearest)
        np.testing.assert_allclose(votes, expected / expected.sum())


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_linear_probe_is_penalized_logistic_regression(multi_label):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 90)
    values = 5 * rng.normal(size=(90, 4)) + 3 * np.eye(3, 4)[labels] + 7
    targets = np.eye(3)[labels]
    given = torch.from_numpy(values), torch.from_numpy(targets)
    layer, penalty = probe.fit_linear(*given, [f"{i // 2}.mp4" for i in range(90)], multi_label)
    assert penalty in probe.PENALTIES[1:-1]
    standard = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    strength = 1 / (2 * penalty * 90 * (3 if multi_label else 1))
    regression = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000)
    logits = layer(given[0]).numpy()
    if multi_label:
        expected = [regression.fit(standard, targets[:, k]).decision_function(standard) for k in range(3)]
        np.testing.assert_allclose(logits.T, expected, atol=1e-3)
    else:
        chances = regression.fit(standard, labels).predict_proba(standard)
        np.testing.assert_allclose(softmax(logits, axis=1), chances, atol=1e-3)


@pytest.mark.parametrize(("suffix", "metric"), [("", "top1"), ("_multilabel", "mAP")])
def test_a_saved_probe_and_the_models_own_classifier_score_as_the_probe_says(
    run_main, request, random_model, tmp_path, suffix, metric
):
    root = request.getfixturevalue(f"toy{suffix}")
    names = read_records(load_description(f"toy{suffix}", str(root)), "val", root).classes.names
    model = random_model(tmp_path / "model", multi_label=bool(suffix), class_names=names)
    for split in ("train", "val"):
        run_main(features.main, *command(model, tmp_path / split, *of_split(root, suffix, split)))
    pair = tmp_path / "train", tmp_path / "val"
    given = ("--checkpoint", model, "--save", tmp_path / "probe", "--output", tmp_path / "probe.json")
    printed, _ = run_main(probe.main, *pair, *given)
    record = json.loads((tmp_path / "probe.json").read_text())
    for name, folder in (("linear probe", tmp_path / "probe"), ("own classifier", model)):
        options = ("--checkpoint", folder, *of_split(root, suffix), "--html", "false", *HERE)
        run_main(evaluation.main, *options, "--output_dir", tmp_path / f"report of {name}")
        (report,) = (tmp_path / f"report of {name}").glob("*/metrics.json")
        measured = json.loads(report.read_text())["metrics"][metric]
        assert record[name]["metrics"][metric] == pytest.approx(measured, abs=1e-9)
        assert f"{100 * measured:.2f}%" in printed
    other = random_model(tmp_path / "other", num_tokens=4, class_names=names)
    run_main(probe.main, *pair, "--checkpoint", other, refused=[other, record["model"][:12]])
