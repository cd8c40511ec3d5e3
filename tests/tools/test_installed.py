"""The command `vidtl` of a wheel and of an editable installation, and the notebook, in processes of their own."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.environment import ENVIRONMENT, REPOSITORY


def _install(folder, *options):
    """Install a copy of the repository, `folder/vidtl`, into an environment of its own: its programs."""
    pytest.importorskip("setuptools", minversion="77")
    source, programs = folder / "vidtl", folder / "environment/bin"
    for name in ("vidtl", "tools", "configs", "datasets", "benchmarks", "tests"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    venv.create(programs.parent)
    packages = [path for path in sys.path if path.endswith("site-packages")]  # without what their .pth files add
    next(programs.parent.rglob("site-packages")).joinpath("these.pth").write_text("\n".join(packages))
    pip = [*(sys.executable, "-m", "pip", "--python", str(programs / "python")), "install", "--quiet", "--no-deps"]
    pip += ["--no-build-isolation", "--no-index", "--ignore-installed", *options, str(source)]
    subprocess.run(pip, check=True, cwd=folder)
    return programs


def _run(program, *options, cwd):
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    command = [str(program), *map(str, options)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_trains_and_predicts_in_any_folder(tmp_path, tiny):
    """A wheel has tools, configurations, data sets and the page template, but neither benchmarks nor tests."""
    programs = _install(tmp_path)
    shutil.rmtree(tmp_path / "vidtl")
    python, vidtl = programs / "python", programs / "vidtl"
    place = Path(_run(python, "-c", "import vidtl; print(vidtl.__file__)", cwd=tmp_path).strip()).parents[1]
    assert programs.parent in place.parents
    assert [path.name for path in place.iterdir() if path.name in ("vidtl", "tools", "configs", "tests")] == ["vidtl"]
    listed = [line.split()[0] for line in _run(vidtl, cwd=tmp_path).splitlines()[2:]]
    assert {"train", "eval", "predict", "prepare", "visualize", "export", "make_toy"} <= set(listed)
    assert not {"command_line", "training_run", "processes"} & set(listed)
    assert "--checkpoint" in _run(vidtl, "predict", "--help", cwd=tmp_path)
    _run(vidtl, "make_toy", "data/toy", "--videos_per_class_train", "1", "--videos_per_class_val", "1", cwd=tmp_path)
    short = ["--config", "configs/toy.yaml", *tiny[2:], "--schedule.length", "1 epochs", "--output_dir", "runs/toy"]
    _run(vidtl, "train", *short, cwd=tmp_path)
    _run(vidtl, "eval", "--checkpoint", "runs/toy", cwd=tmp_path)
    assert list(tmp_path.glob("runs/toy/evaluation/*/*/report.html"))
    assert "frames" in _run(vidtl, "predict", "data/toy", "--checkpoint", "runs/toy", cwd=tmp_path)


def test_an_editable_installation_is_found_above_the_clone(tmp_path):
    """Where the folder of the clone, named like the package, is a namespace."""
    programs = _install(tmp_path, "--editable")
    code = "import vidtl; print(vidtl.__file__)"
    assert _run(programs / "python", "-c", code, cwd=tmp_path).strip() == str(tmp_path / "vidtl/vidtl/__init__.py")
    assert "make_toy" in _run(programs / "vidtl", cwd=tmp_path)


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
