"""Files of weights, read without unpickling: safetensors, `.npz`, and torch files in torch's weights-only mode."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vidtl.errors import UserError

_PLACES = ("state_dict_ema", "state_dict", "model")
"""Keys of the state dict in files of training scripts; averaged weights come first, as they are the published ones."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a `.safetensors` file by name."""
    _require_file(path)
    try:
        return load_file(path)  # type: ignore[no-any-return]
    except SafetensorError as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a torch file, from one of `_PLACES` or the top level; `module.` is stripped from names."""
    _require_file(path)
    with path.open("rb") as file:
        if not file.read(2).startswith((b"PK", b"\x80")):
            raise UserError(f"{path} is no torch file; allowed: what torch.save writes, a zip archive or a pickle")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles end in almost any
        reason = _reason(error)
        raise UserError(f"{path} is no torch file of tensors alone, and nothing else is unpickled: {reason}") from error
    for key in _PLACES:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"{path} holds no state dict; allowed: tensors by name, or such a dict under {', '.join(_PLACES)}"
        )
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a `.npz` file by name; arrays of Python objects, which are pickles, are refused."""
    _require_file(path)
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no whole .npz file, which is a zip archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of zip files, of their compression, and of arrays
        raise UserError(f"{path} is no readable .npz file of plain arrays: {error}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch state dict from a file, by its suffix."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in (".pth", ".pt", ".bin", ".tar"):
        return read_torch(path)
    raise UserError(
        f"{path} has the suffix {path.suffix!r}; allowed: .safetensors, .pth, .pt, .bin, .tar (or .npz, for Flax)"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    _require_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}; allowed: an object")
    return content


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file")
    with path.open("rb") as file:
        start = file.read(100)
    if not start:
        raise UserError(f"{path} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS in place of the file; fetch the file with git lfs pull")


def _reason(error: Exception) -> str:
    """Extract torch's reason, without its advice to unpickle all the same."""
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(\. |$)", str(error), re.MULTILINE)
    return found[1] if found else f"{type(error).__name__} {error}".splitlines()[0]
