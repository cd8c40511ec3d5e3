"""The package as a whole: light import, public names, and no code from files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vidtl
from tests.environment import REPOSITORY


def test_importing_vidtl_is_light_and_silent() -> None:
    code = "import vidtl, sys; print(sorted({'torch', 'av', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == "[]\n"
    assert not done.stderr


@pytest.mark.parametrize("name", vidtl.__all__)
def test_public_names_exist(name: str) -> None:
    assert name in dir(vidtl)
    assert getattr(vidtl, name) is not None
    assert not hasattr(vidtl, f"{name}_")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "vidtl").rglob("*.py")), ids=lambda path: path.stem)
def test_no_pickle_and_no_unsafe_yaml(path: Path) -> None:
    """Files must not run code: no pickle, no full YAML, no torch.load without weights_only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} - {"UnpicklingError"}
            modules = {getattr(node, "module", "") or "", *names} if names else set()
            modules -= {"pickle"} if path.name == "packed.py" else set()  # its class of pickle.Unpickler is restricted
            assert not {"pickle", "dill", "cloudpickle", "shelve"} & {name.split(".")[0] for name in modules}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
            arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert arguments.get("weights_only", "True") == "True"
            assert arguments.get("allow_pickle", "False") == "False"
            assert ast.unparse(node.func) != "torch.load" or "weights_only" in arguments
        if isinstance(node, ast.Attribute):
            unsafe = ("pickle.load", "pickle.loads", "yaml.load", "yaml.full_load", "yaml.unsafe_load")
            assert ast.unparse(node) not in unsafe
