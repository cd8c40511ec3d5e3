"""Files that hold no weights, or not all of them, end the conversion with one line that names the file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

RunMain = Callable[..., tuple[int, str, str]]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"


@pytest.fixture
def refused(run_main: RunMain, tmp_path: Path) -> Callable[..., str]:
    """Convert a file, expect a refusal, and return its line."""
    import convert_weights

    def convert(source: Path, *options: str | Path, output: Path = tmp_path / "model") -> str:
        code, _, errors = run_main(convert_weights.main, source, output, *options)
        lines = errors.splitlines()
        assert (code, len(lines)) == (2, 1), errors
        assert not output.is_dir()
        return lines[0]

    return convert


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.npz", b"", "is empty"),
        ("empty.pth", b"", "is empty"),
        ("text.pth", b"hello world\n" * 100, "is no torch file"),
        ("damaged.pth", b"\x80\x02hello", "is no torch file of tensors alone"),
        ("text.npz", b"hello world\n" * 100, "is no whole .npz file"),
        ("pointer.pth", POINTER, "is a pointer of Git LFS"),
        ("pointer.npz", POINTER, "is a pointer of Git LFS"),
        ("pointer.safetensors", POINTER, "is a pointer of Git LFS"),
    ],
)
def test_what_holds_no_weights(
    refused: Callable[..., str], tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    line = refused(tmp_path / name)
    assert f"{tmp_path / name} {words}" in line
    assert "torch.load" not in line


def test_a_torch_file_of_objects_is_told_without_torchs_advice(refused: Callable[..., str], tmp_path: Path) -> None:
    torch.save({"path": Path("somewhere")}, tmp_path / "objects.pth")
    line = refused(tmp_path / "objects.pth")
    assert "objects.pth is no torch file of tensors alone, and nothing else is unpickled: Unsupported global" in line
    assert "weights_only" not in line


def test_damaged_and_misnamed_archives(refused: Callable[..., str], tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    assert f"{array} is no whole .npz file" in refused(array)
    whole = tmp_path / "whole.npz"
    np.savez(whole, weight=np.arange(1000))
    content = bytearray(whole.read_bytes())
    content[500:540] = bytes(40)
    whole.write_bytes(content)
    assert f"{whole} is no readable .npz file" in refused(whole)


def test_weights_without_a_classifier(refused: Callable[..., str], golden: Path, tmp_path: Path) -> None:
    transformers = golden / "hf_vivit_transformers_v4"
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_bytes((transformers / "config.json").read_bytes())
    state = load_file(transformers / "model.safetensors")
    save_file({name: tensor for name, tensor in state.items() if "classifier" not in name}, base / "model.safetensors")
    with np.load(golden / "vivit_joint_token.npz") as params:
        np.savez(tmp_path / "flax.npz", **{name: params[name] for name in params.files if "projection" not in name})
    t2t = load_file(golden / "t2t_vit_performer" / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in t2t.items() if not name.startswith("head.")}, tmp_path / "t2t.safetensors"
    )
    for source in (base, tmp_path / "flax.npz", tmp_path / "t2t.safetensors"):
        line = refused(source)
        assert str(source) in line
        assert "has no classifier" in line


def test_options_that_cannot_be(refused: Callable[..., str], golden: Path, tmp_path: Path) -> None:
    source = golden / "hf_vivit_transformers_v4"
    for option in ("--num_frames", "--num_heads", "--num_classes"):
        assert f"{option}: '0' is not allowed; allowed: a whole number, 1 or more" in refused(source, option, 0)
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xff\xfe\x00")
    assert f"{file} exists and is no empty directory" in refused(source, output=file)
    assert f"{file}: not a text file in UTF-8" in refused(source, "--class_names", file)
