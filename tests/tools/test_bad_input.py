"""Mistakes in the input and mutated files of a stranger: exit code 2, one line that names the place, no files."""

import shutil
import subprocess
import sys
from pathlib import Path

import benchmark
import eval as evaluation
import profile_model
import pytest
import report
import train

from tests.annotations.sets import write
from tests.environment import ENVIRONMENT, REPOSITORY
from tests.refusals import assert_refusal


@pytest.fixture
def refused(run_main, toy, tmp_path, tiny):
    """Start training with these options and expect a line that names all parts."""

    def start(*options, parts, root=toy):
        output = tmp_path / "run"
        _, errors = run_main(train.main, *tiny, "--data.root", root, "--output_dir", output, *options, refused=parts)
        assert sum(line.startswith("error") for line in errors.splitlines()) == 1
        assert not output.exists()

    return start


@pytest.fixture
def copy(toy, tmp_path):
    return Path(shutil.copytree(toy, tmp_path / "copy"))


def contents(run):
    """Read all files of a run except the lock, which names its last user."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("option", "value", "parts"),
    [
        ("--data.train_split", "trian", ("'trian'", "'train'")),
        ("--training.accumulation_steps", "3", ("training.batch_size", "8", "multiples of 3")),
        ("--augmentation.repeats", "3", ("training.batch_size", "8", "multiples of 3")),
        ("--augmentation.rand_augment_magnitude", "31", ("augmentation.rand_augment_magnitude", "31.0", "0 to 30")),
        ("--clip.num_frames", "9", ("clip.num_frames", "9")),
    ],
)
def test_values_that_cannot_be(refused, option, value, parts):
    refused(option, value, parts=parts)


CHARADES = ("--charades-submission", "none.txt")


@pytest.mark.parametrize(
    ("main", "options", "parts"),
    [
        (benchmark.main, ("train", "--rounds", "0"), ("--rounds", 0)),
        (benchmark.main, ("train", "--output", "no/such/folder.json"), ("--output", "no/such/folder.json")),
        (benchmark.main, ("train", "--optimizer.nam", "sgd"), ("--optimizer.nam", "optimizer.name")),
        (benchmark.main, ("model",), ("model", "train")),
        (profile_model.main, ("--batch", "2"), ("--batch", "--time")),
        (profile_model.main, ("--time", "--batch", "-1"), ("--batch", -1)),
        (profile_model.main, ("--time", "--rounds", "0"), ("--rounds", 0)),
        (evaluation.main, (*CHARADES, "--annotations", "none.csv"), ["none.csv"]),
        (evaluation.main, CHARADES, ["--annotations"]),
        (evaluation.main, ("--annotations", "none.csv"), ["--checkpoint"]),
        (evaluation.main, (*CHARADES, "--annotations", "b", "--checkpoint", "c"), ["--checkpoint"]),
        (report.main, [REPOSITORY], [REPOSITORY / "metrics.json"]),
    ],
)
def test_other_tools(run_main, main, options, parts):
    output, errors = run_main(main, *options, code=2)
    assert output == ""
    assert_refusal(errors, *parts)


@pytest.mark.parametrize(("old", "new"), [("youtube_id", "youtube"), ("moving", "movin")])
def test_wrong_column_and_label(refused, copy, old, new):
    file = copy / "train.csv"
    before, _, after = file.read_text().partition(old)
    file.write_text(f"{before}{new}{after}")
    line = before.count("\n") + 1
    refused(root=copy, parts=[f"{file}:{line}", new] if line > 1 else [file, old])


def test_no_video_can_be_read(refused, copy):
    for video in (copy / "videos/train").iterdir():
        video.write_bytes(b"<html>not found</html>")
    refused(root=copy, parts=["could be read", "it begins as a web page does"])


def test_checkpoint_of_other_data(run_main, toy, copy, tmp_path, tiny):
    run = tmp_path / "run"
    options = [*tiny, "--schedule.length", "1 epoch", "--output_dir", run]
    run_main(train.main, *options, "--data.root", toy)
    before = contents(run)

    head, *rows = (copy / "train.csv").read_text().splitlines()
    (copy / "train.csv").write_text("\n".join([head, *rows[1:], rows[0]]) + "\n")
    run_main(train.main, *options, "--data.root", copy, refused=["data_sha256"])

    other = tmp_path / "fewer"
    text = "format: labelled_csv\nlabels: single\nsplits: {train: {annotations: a.csv}, val: {annotations: a.csv}}\n"
    write(other, {"dataset.yaml": text, "a.csv": "path,label\na.mp4,one\nb.mp4,two\n"})
    shutil.copy(next((toy / "videos/val").iterdir()), other / "a.mp4")
    data = ["--data.dataset", other, "--data.root", other]
    run_main(train.main, *options, *data, refused=["error"])
    run_main(evaluation.main, "--checkpoint", run, *data, refused=["error", "has no class 'one'"])
    assert contents(run) == before


def test_mutated_files_end_in_one_line_each():
    """`make fuzz` has 2,000 of each kind."""
    command = [sys.executable, "-m", "tests.stress.fuzz", "--count", "50"]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count(" end with 2") == 3, found.stdout
