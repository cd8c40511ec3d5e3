"""Rename the contents of files of weights, and load them into a model with a report."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.embedding import Grid, PositionEmbedding, Resizing, resize_positions

_log = logging.getLogger(__name__)


def count_modules(names: Iterable[str], pattern: str) -> int:
    """Count the modules that the group of `pattern` numbers."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def rename(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Convert the names and layouts of a PyTorch model to those of this library.

    All patterns of `rules` are applied to each name, in their order. Fused `qkv` and `kv` are split; class tokens,
    registers and positions lose their leading axes of 1, and patch kernels become matrices.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if match := re.fullmatch(r"(.*blocks\.\d+\.attn\w*\.|pool\.)(q?kv)(\.\w+)", name):
            parts = zip(match[2], tensor.chunk(len(match[2])), strict=True)
            renamed |= {f"{match[1]}{part}{match[3]}": rows for part, rows in parts}
        elif name.endswith(("positions.weight", "registers")):
            renamed[name] = tensor.squeeze(0)  # [1, N, D]
        elif re.fullmatch(r"(encoder\.)?cls", name):
            renamed[name] = tensor.flatten()  # [1, 1, D]
        else:
            renamed[name] = tensor.flatten(1) if name == "embed.proj.weight" else tensor  # [D, C, (t,) h, w]
    return renamed


@dataclass(frozen=True, kw_only=True)
class SourceWeights:
    """Weights under the names of this library, ready for `load_weights`."""

    source: str
    """Origin of the weights, for messages."""
    state: Mapping[str, Tensor]
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """Grids of the position embeddings, where the source has them."""
    class_names: Sequence[str] = ()
    """Names of the classifier's rows, where the source has them."""
    unused: Sequence[str] = ()
    """Names of the source that are left out on purpose."""
    unexpected: Sequence[str] = ()
    """Names of the source without a counterpart here."""
    resizing: Resizing | None = None
    """Method for positions of another grid; None: that of the model."""


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """Weights of another project under the names of this library, with the settings they need."""

    model: Mapping[str, Any]
    """Keys of `model`, without TokenLearner: the whole model as published."""
    clip: Mapping[str, Any]
    """Keys of `clip` that the source states; for image models neither `num_frames` nor `stride`."""
    weights: SourceWeights
    multi_label: bool | None = None
    """Any number of classes per clip; None where unknown."""
    num_outputs: int = 0
    """Number of classes of a model directory; 0 for other weights."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the classifier; 0 without one."""
        return self.num_outputs or len(self.weights.state.get("head.weight", ()))


def grouped(names: Iterable[str]) -> list[str]:
    """List names once that differ in the numbers of their modules only."""
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Every name of a load, by its outcome; `str(report)` lists them."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Names of the model that the source lacks; they keep their initial values."""
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    """Names in both with different shapes, with both shapes."""
    resized: tuple[str, ...]
    """Position embeddings fitted to the model's grid, with both grids."""
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        for title in ("fresh", "unexpected", "mismatched", "resized", "unused"):
            names = self.missing if title == "fresh" else getattr(self, title)
            lines.extend([f"{title} ({len(names)}):", *(f"  {name}" for name in grouped(names))] if names else [])
        return "\n".join(lines)

    def check(self, allow_missing: Sequence[str] = ()) -> None:
        """Raise a UserError for unexpected names, other shapes, or missing names that fit no pattern (`head.*`)."""
        problems = {
            "missing": [name for name in self.missing if not any(fnmatchcase(name, each) for each in allow_missing)],
            "unexpected": self.unexpected,
            "of another shape": self.mismatched,
        }
        parts = [
            f"{len(names)} {problem}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
            for problem, names in problems.items()
            if names
        ]
        if parts:
            raise UserError(f"{self.source} does not fit the model: {'; '.join(parts)}")


def load_weights(model: nn.Module, weights: SourceWeights, *, allow_missing: Sequence[str] = ()) -> LoadReport:
    """Copy weights into `model`, learned positions resized to its grid; all of it or, on an error, nothing.

    `allow_missing` has patterns such as `head.*` of names that may lack. UserError for other names or shapes.
    """
    state = dict(weights.state)
    resized = _fit_positions(model, state, weights)
    report = compare(model, replace(weights, state=state), resized)
    report.check(allow_missing)
    own = model.state_dict()
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(state[name])
    for line in str(report).splitlines():
        _log.info("%s", line)
    return report


def compare(model: nn.Module, weights: SourceWeights, resized: Sequence[str] = ()) -> LoadReport:
    """Compare names and shapes; the model may be on the meta device."""
    own, state = model.state_dict(), weights.state
    mismatched = [name for name in own if name in state and own[name].shape != state[name].shape]
    loaded = [name for name in own if name in state and name not in mismatched]
    return LoadReport(
        source=weights.source,
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in state),
        unexpected=(*weights.unexpected, *(name for name in state if name not in own)),
        mismatched=tuple(f"{name} ({list(state[name].shape)}, not {list(own[name].shape)})" for name in mismatched),
        resized=tuple(resized),
        unused=tuple(weights.unused),
    )


def _fit_positions(model: nn.Module, state: dict[str, Tensor], weights: SourceWeights) -> list[str]:
    """Resize position embeddings of `state` in place, and describe each."""
    resized = []
    for prefix, module in model.named_modules():
        name = f"{prefix}.weight"
        if not isinstance(module, PositionEmbedding) or name not in state:
            continue
        rows = state[name].shape[0]
        has_class_row = prefix.removesuffix("positions") + "cls" in weights.state
        source = weights.grids.get(name) or _guess_grid(rows - has_class_row, module.grid, name, weights.source)
        if source == module.grid and rows == module.weight.shape[0]:
            continue
        state[name] = resize_positions(state[name], source, module, f"{weights.source}: {name}", weights.resizing)
        lost = rows - source.size - module.num_prefix
        class_row = f" without {lost} rows of prefix tokens" if lost > 0 else ""
        resized.append(f"{name} (grid {source} to {module.grid}{class_row})")
    return resized


def _guess_grid(size: int, target: Grid, name: str, source: str) -> Grid:
    """Guess the grid of `size` rows: the target's, or one that differs in length or in a square frame size."""
    if size == target.size:
        return target
    side = math.isqrt(size // target.t)
    guesses = [Grid(size // (target.h * target.w), target.h, target.w), Grid(target.t, side, side)]
    guesses = [guess for guess in guesses if guess.size == size]
    if len(guesses) != 1:
        found = " or ".join(map(str, guesses)) or "no grid that differs only in length or only in frame size"
        advice = "convert it with tools/convert_weights.py and the grid of the source, such as --source_grid 16 14 14"
        raise UserError(f"{source}: {name} has {size} rows, which fit {found} (the model has {target}); {advice}")
    return guesses[0]
