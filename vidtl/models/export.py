"""Export of models to files that run without this project: ONNX (`.onnx`) and torch.export (`.pt2`).

Normalized float32 `input_BTCHW` to `logits_BK`. An older file stays until the new one agrees with the model.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram

from vidtl import __version__
from vidtl.config.checks import require
from vidtl.config.compare import plain
from vidtl.errors import UserError, did_you_mean, install_extra
from vidtl.models.base import VideoModel
from vidtl.runtime.files import replacing
from vidtl.runtime.seeding import generator

TOLERANCE = 1e-4
"""Largest difference allowed between the logits of file and model, as a share of the largest logit."""

METADATA = "vidtl"
"""Key of the metadata in `.onnx` files; in `.pt2` files it is the extra file `vidtl.json`."""

_EXTRA_FILE = f"{METADATA}.json"
_MOST_ONNX_BYTES = 2 * 10**9  # a protobuf message ends at 2 GiB, and the graph needs some of that

RunClips = Callable[[Tensor], Tensor]


class Check(NamedTuple):
    """Comparison of an exported file with its model, on random clips."""

    batch: int
    max_difference: float
    largest_logit: float

    def require(self, path: Path, tolerance: float) -> None:
        """Raise a UserError where the logits of file and model do not agree."""
        if not self.max_difference <= tolerance * self.largest_logit:  # also for NaN
            reason = f"because it differs from the model ({self}); allowed: {tolerance:g} of the largest logit"
            raise UserError(f"{path} was not written, {reason}")

    def __str__(self) -> str:
        return f"batch of {self.batch}: max|diff| {self.max_difference:.1e}, largest logit {self.largest_logit:.1e}"


def export_model(model: VideoModel, path: Path, batch: int | None = None, tolerance: float = TOLERANCE) -> list[Check]:
    """Write `model` to `path`, in the format of its suffix, and return comparisons of the logits of both.

    The model, on the CPU, is left in evaluation mode, and an existing file is replaced. A `batch` of None is any number
    of clips, checked with 1 and 3. UserError: as `check_output`; a batch below 1, a model too large for ONNX, or a
    difference above `tolerance`, a share of the largest logit.
    """
    check_output(path)
    require(batch is None or batch >= 1, "batch", batch, "1 or more, or dynamic")
    file_format = FORMATS[path.suffix]
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    allowed = f"{_MOST_ONNX_BYTES / 1e9:g} GB in an .onnx file, or any number in a .pt2 file"
    require(path.suffix != ".onnx" or size <= _MOST_ONNX_BYTES, "size of the weights", f"{size / 1e9:.1f} GB", allowed)
    metadata, program = model_metadata(model, batch), _trace(model.eval(), batch)
    with replacing(path) as temporary:
        file_format.write(program, temporary, metadata)
        if read_metadata(temporary) != metadata:
            raise AssertionError(f"{path.suffix} files do not return the metadata written")
        run = file_format.open(temporary)
        checks = [compare(model, run, size) for size in ((1, 3) if batch is None else (batch,))]
        for check in checks:
            check.require(path, tolerance)
    return checks


def check_output(path: Path) -> None:
    """Raise a UserError for an unknown suffix, packages that are not installed, or a path that cannot be written."""
    if path.suffix not in FORMATS:
        raise UserError(f"output is {str(path)!r} with suffix {path.suffix!r}; {did_you_mean(path.suffix, FORMATS)}")
    missing = [name for name in FORMATS[path.suffix].packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{path.suffix} files need {', '.join(missing)}; install with: {install_extra('export')}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"output is {str(path)!r}; allowed: a file in a folder that exists and can be written")


def model_metadata(model: VideoModel, batch: int | None) -> dict[str, Any]:
    """Return the metadata of a file, as JSON; `class_names` is empty and `multi_label` null where unknown."""
    metadata: dict[str, Any] = {
        "vidtl_version": __version__,
        "architecture": model.model_config.architecture,
        "batch": "dynamic" if batch is None else batch,
        "num_classes": model.num_classes,
        "class_names": model.class_names,
        "multi_label": model.multi_label,
        "clip": asdict(model.clip_config),
    }
    return dict(plain(metadata))


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a file, as `model_metadata` returned it."""
    return dict(json.loads(FORMATS[path.suffix].read_metadata(path)))


class _Format(NamedTuple):
    """A file format: packages it needs, and functions to write it, open it and read its metadata (JSON)."""

    packages: Sequence[str]
    write: Callable[[ExportedProgram, Path, dict[str, Any]], None]
    open: Callable[[Path], RunClips]
    read_metadata: Callable[[Path], str]


def _trace(model: VideoModel, batch: int | None) -> ExportedProgram:
    example = _random_clips(model, batch or 2)  # torch.export treats sizes 0 and 1 of an example as constants
    sizes = {"input_BTCHW": {0: Dim("batch")} if batch is None else None}
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=sizes)
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)  # lines of code and paths of this machine
    return program


def _random_clips(model: VideoModel, batch: int) -> Tensor:
    clip = model.clip_config
    shape = (batch, clip.input_frames, 3, *clip.frame_size)
    return torch.from_numpy(generator(0, batch).standard_normal(shape, dtype=np.float32))


def compare(model: VideoModel, run: RunClips, batch: int) -> Check:
    """Compare the logits of a model and of what was exported, on random clips."""
    clips = _random_clips(model, batch)
    with torch.no_grad():
        expected_BK, found_BK = model(clips), run(clips)
    same_shape = found_BK.shape == expected_BK.shape
    difference = (found_BK - expected_BK).abs().max().item() if same_shape else float("inf")
    return Check(batch, difference, expected_BK.abs().max().item())


def _write_onnx(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    import onnx

    converted = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=["input_BTCHW"],
        output_names=["logits_BK"],
        dynamic_shapes={"input_BTCHW": {0: "batch"}},  # only names the axis, and only if it is dynamic
    )
    assert converted is not None
    converted.model.metadata_props[METADATA] = json.dumps(metadata)
    onnx.save(converted.model_proto, path)


def _open_onnx(path: Path) -> RunClips:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(["logits_BK"], {"input_BTCHW": clips.numpy()})[0])


def _read_onnx_metadata(path: Path) -> str:
    import onnx

    (text,) = (entry.value for entry in onnx.load(path).metadata_props if entry.key == METADATA)
    return str(text)


def _write_pt2(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    program.example_inputs = None  # would be saved too, tens of MB of random clips
    buffer = BytesIO()  # on a full disk torch's own writer raises a RuntimeError that does not say so
    torch.export.save(program, buffer, extra_files={_EXTRA_FILE: json.dumps(metadata)})
    path.write_bytes(buffer.getbuffer())


def _read_pt2_metadata(path: Path) -> str:
    with ZipFile(path) as archive:  # torch.export.load would read the weights and rebuild the graph too
        (name,) = (name for name in archive.namelist() if name.endswith(f"extra/{_EXTRA_FILE}"))
        return archive.read(name).decode()


FORMATS: dict[str, _Format] = {
    ".onnx": _Format(("onnx", "onnxscript", "onnxruntime"), _write_onnx, _open_onnx, _read_onnx_metadata),
    ".pt2": _Format((), _write_pt2, lambda path: torch.export.load(path).module(), _read_pt2_metadata),
}
