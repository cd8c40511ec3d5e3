"""Mistakes are reported, and help is printed, before slow imports."""

import subprocess
import sys

import pytest

from tests.environment import REPOSITORY
from tests.refusals import assert_refusal

TOOLS = (
    *("train", "eval", "predict", "visualize", "profile_model", "export", "convert_weights", "prepare", "study"),
    *("make_toy", "report", "features", "probe", "__main__"),
)
SLOW = {"torch", "torch._dynamo", "accelerate", "matplotlib", "scipy", "torchmetrics", "transformers"}

MISTAKES = {
    **{tool: (("--confg", "x"), ("--confg",)) for tool in TOOLS if tool != "study"},
    "train, key": (("--output_dir", "x", "--clip.strid", "2"), ("--clip.strid", "--clip.stride")),
    "train, value": (("--output_dir", "x", "--clip.num_frames", "0"), ("clip.num_frames", "0")),
    "train, file": (("--output_dir", "x", "--config", "configs/toyy.yaml"), ("configs/toyy.yaml", "'toy.yaml'")),
    "train, root": (("--output_dir", "x", "--data.root", "no/such"), ("data.root", "no/such")),
    "train, dataset": (("--output_dir", "x", "--data.dataset", "toi"), ("data.dataset", "'toi'", "'toy'")),
    "train, protocol": (
        ("--output_dir", "x", "--data.dataset", "toy", "--evaluation.protocol", "centre"),
        ("'centre'", "'center'"),
    ),
    "__main__, tool": (("trian",), ("'trian'", "'train'")),
    "study, option": (("x.yaml", "--output_dir", "x", "--confg", "x"), ("--confg",)),
    "study, file": (("no.yaml", "--output_dir", "x"), ("no.yaml",)),
    "eval, checkpoint": (("--checkpoint", "no/such"), ("no/such",)),
    "eval, value": (("--checkpoint", "x", "--evaluation.averaged_weights", "2"), ("evaluation.averaged_weights", "2")),
    "predict, checkpoint": (("x.mp4", "--checkpoint", "no/such"), ("no/such",)),
    "features, checkpoint": (("x.mp4", "--checkpoint", "no/such", "--output", "x"), ("no/such",)),
    "probe, option": (("x", "y", "--save", "z"), ("--save", "'z'", "--checkpoint")),
    "visualize, checkpoint": (("--checkpoint", "no/such"), ("no/such",)),
    "export, checkpoint": (("--checkpoint", "no/such", "--output", "x.onnx"), ("no/such",)),
}


def start(tool, *options):
    """Run a tool: exit code, output, errors and the slow modules imported."""
    command = [sys.executable, "-X", "importtime", str(REPOSITORY / f"tools/{tool}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    errors = "\n".join(line for line in lines if not line.startswith("import time:"))
    return done.returncode, done.stdout, errors, imported & SLOW


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_reported_first(mistake):
    options, parts = MISTAKES[mistake]
    code, _, errors, slow = start(mistake.partition(",")[0], *options)
    assert (code, slow) == (2, set()), errors
    assert_refusal(errors, *parts)


@pytest.mark.parametrize("tool", TOOLS)
def test_help_is_printed_first(tool):
    code, text, errors, slow = start(tool, "--help")
    assert (code, slow, errors) == (0, set(), "")
    assert "--" in text
