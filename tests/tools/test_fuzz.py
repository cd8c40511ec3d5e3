"""Files of a stranger, each mutated by a seed: every tool that reads them ends in order."""

import subprocess
import sys

from tests.environment import ENVIRONMENT


def test_mutated_files_end_in_one_line_each():
    """`make fuzz` has 2,000 of each kind."""
    command = [sys.executable, "-m", "tests.stress.fuzz", "--count", "50"]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count(" end with 2") == 3, found.stdout  # a damaged video ends none
