"""Read files of weights and settings; nothing but tensors is unpickled."""

import argparse
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

from vidtl.config.documents import JSON_BYTES, read_json
from vidtl.errors import UserError
from vidtl.models.base import WEIGHTS_FILE

TORCH_FILE = "pytorch_model.bin"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"  # with the shards of a large model
PREPROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json")  # with the range of pixels

_PLACES = ("state_dict_ema", "state_dict", "model", "module", "model_state")
"""Keys of the state dict in files of training scripts; averaged weights first, as they are the published ones."""

_MAX_EXPANSION, _SPARE_BYTES = 20, 64 << 20


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a `.safetensors` file by name."""
    header_bytes = int.from_bytes(_require_file(path)[:8], "little")
    if header_bytes > JSON_BYTES:
        raise UserError(f"{path} has a header of {header_bytes} bytes; allowed: {JSON_BYTES}")
    try:
        return load_file(path)  # type: ignore[no-any-return]
    except SafetensorError as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error


def read_directory_state(directory: Path) -> dict[str, Tensor]:
    """Read a state dict from `model.safetensors`, from its shards, or from `pytorch_model.bin`."""
    if (directory / WEIGHTS_FILE).is_file():
        return read_safetensors(directory / WEIGHTS_FILE)
    index = directory / INDEX_FILE
    if not index.is_file():
        if not (directory / TORCH_FILE).is_file():
            raise UserError(f"{directory} has no weights; allowed: {WEIGHTS_FILE}, {INDEX_FILE} or {TORCH_FILE}")
        return read_state(directory / TORCH_FILE)
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(Path(str(each)).name == each for each in shards.values()):
        raise UserError(f"{index}: weight_map is {str(shards)[:80]}; allowed: the name of a file for each tensor")
    files = sorted(set(shards.values()))
    if missing := [file for file in files if not (directory / file).is_file()]:
        raise UserError(f"{index} names {len(files)} files; missing: {', '.join(missing)}")
    return {name: tensor for file in files for name, tensor in read_safetensors(directory / file).items()}


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict of a `.safetensors` file, or of a torch file, under one of `_PLACES` or at the top level."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in (".pth", ".pyth", ".pt", ".bin", ".tar"):
        allowed = ".safetensors, .pth, .pyth, .pt, .bin, .tar (or .npz, for Flax)"
        raise UserError(f"{path} has the suffix {path.suffix!r}; allowed: {allowed}")
    if not _require_file(path).startswith((b"PK", b"\x80")):
        raise UserError(f"{path} is no torch file; allowed: output of torch.save, a zip archive or a pickle")
    try:
        _check_zip(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # options beside the weights, as VideoMAE's
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles end in almost any
        reason = re.search(r"WeightsUnpickler error:\s*(.+?)(\. |$)", str(error), re.MULTILINE)
        text = reason[1] if reason else f"{type(error).__name__} {error}".splitlines()[0]  # without torch's advice
        raise UserError(f"{path} is no torch file of tensors alone, and nothing else is unpickled: {text}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in _PLACES if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        allowed = f"tensors by name, or such a dict under {', '.join(_PLACES)}"
        raise UserError(f"{path} holds no state dict; allowed: {allowed}")
    _check_size(path, sum(tensor.nbytes for tensor in content.values()))
    return content


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a `.npz` file by name; arrays of Python objects, which are pickles, are refused."""
    _require_file(path)
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no whole .npz file, which is a zip archive")
    try:
        _check_zip(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of zip files, of their compression, and of arrays
        raise UserError(f"{path} is no readable .npz file of plain arrays: {error}") from error


def _check_zip(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(entry.file_size for entry in archive.infolist()))


def _check_size(path: Path, num_bytes: int) -> None:
    """Refuse contents far larger than their file: compressed zeros, and tensors whose elements share memory."""
    most = _MAX_EXPANSION * path.stat().st_size + _SPARE_BYTES
    if num_bytes > most:
        raise UserError(f"{path} holds {num_bytes} bytes; allowed: {most}, {_MAX_EXPANSION} times its size")


def _require_file(path: Path) -> bytes:
    """Return the first bytes of a file; UserErrors for an absent or empty file and for a pointer of Git LFS."""
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file")
    with path.open("rb") as file:
        start = file.read(100)
    if not start:
        raise UserError(f"{path} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS in place of the file; fetch the file with git lfs pull")
    return start
