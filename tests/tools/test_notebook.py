"""The notebook, run cell by cell in a fresh process."""

import json
import subprocess
import sys

from tests.environment import ENVIRONMENT, REPOSITORY


def test_the_notebook_trains_predicts_and_draws(tmp_path):
    cells = json.loads((REPOSITORY / "examples/quick_start.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    program = "\n".join(["".join(cell["source"]) for cell in code] + ["assert accuracy > 0.25 and len(axes) == 2"])
    environment = {**ENVIRONMENT, "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error::UserWarning", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "48 features -> horizontal, vertical" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"toy", "runs", "two_classes"}
