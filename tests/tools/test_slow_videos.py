"""Videos that exceed `data.read_timeout_s`, and known gaps: each is named and costs no other."""

import csv
import json
import shutil
from pathlib import Path

import av
import eval as evaluation
import numpy as np
import predict as prediction
import prepare
import pytest
import train

from tests.refusals import assert_refusal
from tests.training.runs import are_equal, checkpoint_of, cut_back
from vidtl.data.manifest import default_file

LIMIT = ("--data.read_timeout_s", "0.05")  # of CPU time; a frame of a toy video takes less than a millisecond
REASON = "0.05 s of CPU time"


@pytest.fixture(scope="module")
def slow(toy, tmp_path_factory):
    """A toy set with one video for each split that takes a third of a second for its frame, of 8K noise."""
    root = tmp_path_factory.mktemp("slow") / "toy"
    shutil.copytree(toy, root)
    frame = np.random.default_rng(0).integers(0, 255, (4320 * 3 // 2, 8192), dtype=np.uint8)
    for split in ("train", "val"):
        file = sorted((root / "videos" / split).iterdir())[3]
        with av.open(str(file), "w", format="mov") as output:
            stream = output.add_stream("mjpeg", rate=25)
            stream.height, stream.width, stream.pix_fmt = 4320, 8192, "yuvj420p"
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "yuvj420p")))
            output.mux(stream.encode(None))
    return root


def name_of(root, split):
    return sorted((root / "videos" / split).iterdir())[3].name


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_others_are_predicted(run_main, slow, untrained_model, num_workers):
    options = ["--checkpoint", untrained_model, "--data.num_workers", num_workers, "--json", *LIMIT]
    output, _ = run_main(prediction.main, slow / "videos/val", *options, code=prediction.EXIT_UNREADABLE)
    found = {Path(line["path"]).name: line["reason"] for line in map(json.loads, output.splitlines())}
    assert len(found) == 16
    ((name, reason),) = [item for item in found.items() if item[1]]
    assert name == name_of(slow, "val")
    assert REASON in reason


def test_all_others_are_scored(run_main, slow, untrained_model, tmp_path):
    options = ["--data.dataset", "toy", "--data.root", slow, "--output_dir", tmp_path, "--html", "false"]
    run_main(evaluation.main, "--checkpoint", untrained_model, *options, *LIMIT)
    (row,) = csv.DictReader((tmp_path / "val-center/unreadable.csv").open())
    assert Path(row["path"]).name == name_of(slow, "val")
    assert REASON in row["reason"]


def test_a_resumed_run_does_not_try_what_was_given_up(run_main, slow, tiny, tmp_path):
    options = [*tiny, "--data.root", slow, "--schedule.length", "2 epochs", "--training.checkpoint_every_steps", "3"]
    options += ["--data.max_unreadable_share", "1", "--training.keep_checkpoints", "9"]
    run_main(train.main, *options, *LIMIT, "--output_dir", tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole/given_up.jsonl").read_text().splitlines()]
    assert {line["epoch"] for line in lines if line["record"] == line["tried"]} == {0, 1}
    assert {Path(line["path"]).name for line in lines} == {name_of(slow, "train")}
    assert all(REASON in line["reason"] for line in lines)
    # Killed in its end, it finds a machine that is fast enough.
    cut_back(tmp_path / "whole", tmp_path / "resumed", 3)
    run_main(train.main, *options, "--data.read_timeout_s", "60", "--output_dir", tmp_path / "resumed")
    for file in ("checkpoints/step-00000008/model.safetensors", "given_up.jsonl", "unreadable.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "resumed" / file).read_bytes()


@pytest.fixture
def gappy(toy, tmp_path, run_main):
    """A toy set with 4 of 32 training videos and one of 16 validation videos missing or broken, and its manifest."""
    root = Path(shutil.copytree(toy, tmp_path / "gappy"))
    missing, *broken = sorted((root / "videos/train").iterdir())[:4]
    missing.unlink()
    for number, path in enumerate(broken):
        path.write_bytes(path.read_bytes()[: 200 + number] if number else b"")
    sorted((root / "videos/val").iterdir())[0].unlink()
    run_main(prepare.main, "--dataset", "toy", "--root", root, "--workers", 2)
    return root


def test_known_gaps_are_left_out_of_a_run_and_its_resumed_parts(gappy, tiny, tmp_path, run_main):
    options = [*tiny, "--data.root", gappy, "--schedule.length", "2 epochs", "--data.max_unreadable_share", 0]
    options += ["--training.checkpoint_every_steps", 2, "--training.keep_checkpoints", 9, "--training.batch_size", 4]
    out, error = run_main(train.main, *options, "--output_dir", tmp_path / "whole")
    listed = tmp_path / "whole/left_out.jsonl"
    assert len({json.loads(line)["path"] for line in listed.read_text().splitlines()}) == 4
    (line,) = [line for line in error.splitlines() if str(listed) in line]
    for part in ("4 of 32 videos", "1 No such file or directory", "1 the file is empty"):
        assert part in line
    assert "unreadable" not in out
    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    assert summary["data"]["videos"] == {"train": 28, "evaluation": 16}
    assert (summary["results"]["videos_asked"], summary["results"]["videos_unreadable"]) == (56, 0)

    default_file(gappy).unlink()
    _, error = run_main(train.main, *options, "--output_dir", tmp_path / "unknown", code=2)
    assert_refusal(error.splitlines()[-1], "data.max_unreadable_share: 0", "tools/prepare.py")
    assert not (tmp_path / "unknown/left_out.jsonl").exists()
    resumed = cut_back(tmp_path / "whole", tmp_path / "resumed", 6)
    run_main(train.main, *options, "--output_dir", resumed)
    assert are_equal(checkpoint_of(tmp_path / "whole", 14), checkpoint_of(resumed, 14))

    other = cut_back(tmp_path / "whole", tmp_path / "other", 6)
    (other / "left_out.jsonl").unlink()
    run_main(train.main, *options, "--output_dir", other, refused=["num_videos", 28, 32])
