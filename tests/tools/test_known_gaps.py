"""Known gaps: `prepare` lists them, training leaves them out, and evaluation counts them."""

import json
import shutil
from pathlib import Path

import prepare
import pytest
import train

from tests.refusals import assert_refusal
from tests.training.runs import are_equal, checkpoint_of, cut_back
from vidtl.data.manifest import default_file


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
    _, error = run_main(train.main, *options, "--output_dir", other, code=2)
    assert_refusal(error.splitlines()[-1], "num_videos", 28, 32)
