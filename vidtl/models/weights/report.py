"""Load weights from elsewhere into a model, with a report of every name that did not simply match."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from vidtl.errors import UserError
from vidtl.models.position import Grid, PositionEmbedding, resize_positions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourceWeights:
    """Weights under this library's names, ready for `load_weights`."""

    source: str
    """Where they come from, for messages."""
    state: Mapping[str, Tensor]
    grids: Mapping[str, Grid] = field(default_factory=dict)
    """Grids of the position embeddings, where the source has them."""
    unused: Sequence[str] = ()
    """Names of the source that are left out on purpose."""
    unexpected: Sequence[str] = ()
    """Names of the source that nothing here corresponds to."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the classifier; a UserError where the source has none."""
        if "head.weight" not in self.state:
            raise UserError(
                f"{self.source} has no classifier, so that no whole model can be made of it; it can start a training "
                "(--training.init_from), with --training.init_new_head true"
            )
        return self.state["head.weight"].shape[0]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Every name of a load, by its outcome; `str(report)` lists them."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Names of the model that the source lacks; they keep their initial values."""
    unexpected: tuple[str, ...]
    """Names of the source that have no place in the model."""
    mismatched: tuple[str, ...]
    """Names in both with different shapes, with both shapes."""
    resized: tuple[str, ...]
    """Position embeddings fitted to the model's grid, with both grids."""
    unused: tuple[str, ...]
    """Names of the source left out on purpose."""

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        for title in ("missing", "unexpected", "mismatched", "resized", "unused"):
            names = getattr(self, title)
            lines.extend([f"{title} ({len(names)}):", *(f"  {name}" for name in names)] if names else [])
        return "\n".join(lines)

    def check(self, allow_missing: Sequence[str] = ()) -> None:
        """Raise a UserError for unexpected names, other shapes, or missing names that fit no pattern (`head.*`)."""
        problems = {
            "missing": [name for name in self.missing if not any(fnmatchcase(name, each) for each in allow_missing)],
            "unexpected": list(self.unexpected),
            "of another shape": list(self.mismatched),
        }
        told = [
            f"{len(names)} {problem}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
            for problem, names in problems.items()
            if names
        ]
        if told:
            raise UserError(f"{self.source} does not fit the model: {'; '.join(told)}")


def load_weights(
    model: nn.Module,
    weights: SourceWeights,
    *,
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Copy weights into `model`, learned positions resized to its grid; all of it or, on an error, nothing.

    Args:
        model: changed in place.
        weights: an importer's result.
        allow_missing: patterns of the model's names that the source may lack, such as `head.*`.

    Raises:
        UserError: names or shapes do not match and are not allowed to differ.
    """
    own = model.state_dict()
    state = dict(weights.state)
    resized = _fit_positions(model, state, weights)
    mismatched = [name for name in own if name in state and own[name].shape != state[name].shape]
    loaded = [name for name in own if name in state and name not in mismatched]
    report = LoadReport(
        source=weights.source,
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in state),
        unexpected=(*weights.unexpected, *(name for name in state if name not in own)),
        mismatched=tuple(f"{name} ({list(state[name].shape)}, not {list(own[name].shape)})" for name in mismatched),
        resized=tuple(resized),
        unused=tuple(weights.unused),
    )
    report.check(allow_missing)
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(state[name])
    _log.info("%s", report)
    return report


def _fit_positions(model: nn.Module, state: dict[str, Tensor], weights: SourceWeights) -> list[str]:
    """Resize position embeddings of `state` in place, and describe each."""
    told = []
    for prefix, module in model.named_modules():
        name = f"{prefix}.weight"
        if not isinstance(module, PositionEmbedding) or name not in state:
            continue
        rows = state[name].shape[0]
        has_class_row = prefix.removesuffix("positions") + "cls" in weights.state
        source = weights.grids.get(name) or _guess_grid(rows - has_class_row, module.grid, name, weights.source)
        if source == module.grid and rows == module.weight.shape[0]:
            continue
        try:
            state[name] = resize_positions(state[name], source, module, name)
        except ValueError as error:
            raise UserError(f"{weights.source}: {error}") from error
        class_row = " without the class row" if rows > source.size and not module.class_token else ""
        told.append(f"{name} (grid {source} to {module.grid}{class_row})")
    return told


def _guess_grid(size: int, target: Grid, name: str, source: str) -> Grid:
    """Guess the grid of `size` rows: the target's, or one that differs in length or in a square frame size."""
    if size == target.size:
        return target
    guesses = []
    if size % (target.h * target.w) == 0:
        guesses.append(Grid(size // (target.h * target.w), target.h, target.w))
    if size % target.t == 0 and math.isqrt(size // target.t) ** 2 == size // target.t:
        side = math.isqrt(size // target.t)
        guesses.append(Grid(target.t, side, side))
    if len(guesses) != 1:
        found = " or ".join(map(str, guesses)) or "no grid that differs only in length or only in frame size"
        raise UserError(
            f"{source}: {name} has {size} rows, which fit {found} (the model has {target}); "
            "convert it with tools/convert_weights.py and the grid of the source, such as --source_grid 16 14 14"
        )
    return guesses[0]
