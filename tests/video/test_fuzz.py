"""Mutated files: no crash, no hang, no count of frames that the manifest does not bear out (`make stress`: 3,000)."""

from pathlib import Path

import pytest

from tests.stress.decoding import fuzz_files, make_seeds, verdict
from tests.stress.outcome import Outcome
from vidtl.errors import UserError
from vidtl.video import DECODERS, open_video


@pytest.mark.parametrize("decoder", DECODERS)
def test_mutated_files_are_read_as_the_manifest_says_or_refused(tmp_path: Path, decoder: str) -> None:
    seeds = make_seeds(tmp_path)
    try:
        open_video(seeds[0], decoder).close()
    except UserError as error:
        pytest.skip(str(error))
    assert verdict(seeds[0], decoder) == "read"
    outcome = Outcome()
    fuzz_files(tmp_path, decoder, 50, seed=7, outcome=outcome)
    assert outcome.failures == []
    assert outcome.cases == 50
    assert outcome.figures[f"{decoder} read"] >= 5
    assert outcome.figures[f"{decoder} refused"] >= 5
