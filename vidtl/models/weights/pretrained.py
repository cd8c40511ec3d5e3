"""Load published weights into a model of any form and any classes."""

import logging
from dataclasses import replace
from pathlib import Path

from vidtl.errors import UserError, did_you_mean, spelling
from vidtl.models.base import VideoModel
from vidtl.models.embedding import Grid
from vidtl.models.vivit import ViViT
from vidtl.models.weights.fit import Inflation, check_decided, fit, fresh_parts, is_image_model, warn_of_other_clip
from vidtl.models.weights.load import LoadReport, PublishedModel, SourceWeights, load_weights
from vidtl.models.weights.published import read_published

SHOWN_NAMES = 8  # of classes in one line

_log = logging.getLogger(__name__)


def load_pretrained(
    model: VideoModel,
    source: str | Path | PublishedModel,
    *,
    new_head: bool = False,
    inflation: Inflation = "central_frame",
    source_grid: Grid | None = None,
) -> LoadReport:
    """Load weights into `model`, if all of it fits; form, clips and classes may differ.

    Rows of the classifier follow the class names. Rows of classes that the source lacks keep their fresh weights.

    Args:
        source: name or place, see `read_published`, or what it returned.
        new_head: keep the fresh weights of the classifier (image models: always).
        inflation: image models only, see `fit`.
        source_grid: Flax ViViTs only, tokens along time, height and width where the file leaves it open.

    UserError: the weights do not fit the model, or have no class or no class names of a model whose classes have.
    """
    published = source if isinstance(source, PublishedModel) else read_published(source)
    weights = published.weights
    head = f"{model.classifier()[0]}."
    new_head = new_head or is_image_model(published)
    if hasattr(model, "model_config"):  # from `build_model`
        check_decided(model, published, new_head)
        warn_of_other_clip(model, published)
    if new_head:
        left = [name for name in weights.state if name.startswith(head)]
        kept = {name: tensor for name, tensor in weights.state.items() if name not in left}
        weights = replace(weights, state=kept, unused=(*weights.unused, *left))
    elif model.class_names:
        weights = _rows_by_name(model, weights)
    if source_grid:  # of the whole clip, or of one timestep and of time
        encoder = source_grid._replace(t=1) if "temporal_encoder.norm.weight" in weights.state else source_grid
        grids = {"encoder": encoder, "temporal_encoder": Grid(source_grid.t, 1, 1)}
        weights = replace(weights, grids={f"{name}.positions.weight": grid for name, grid in grids.items()})
    if isinstance(model, ViViT):
        weights = fit(replace(published, weights=weights), model, inflation)
    allowed = fresh_parts(model, weights)
    return load_weights(model, weights, allow_missing=(*allowed, f"{head}*") if new_head else allowed)


def _rows_by_name(model: VideoModel, weights: SourceWeights) -> SourceWeights:
    """Arrange the classifier's rows by the class names of the model, with its fresh rows for further classes."""
    own, (name, layer) = model.class_names, model.classifier()
    if f"{name}.weight" not in weights.state:
        return weights
    number = {each: row for row, each in enumerate(weights.class_names)}
    count, fresh_head = len(weights.state[f"{name}.weight"]), "training.init_new_head true, for a fresh classifier"
    if not number:
        allowed = f"{fresh_head}, or a directory made by tools/convert_weights.py --class_names"
        raise UserError(f"{weights.source} has no class names; allowed: {allowed}")
    if len(number) != count:
        found = f"has {count} classes and {len(number)} different names of them"
        raise UserError(f"{weights.source} {found}; allowed: {fresh_head}")
    rows = [row for row, each in enumerate(own) if each in number]
    if not rows:
        found = f"has none of the {len(own)} classes, such as {own[0]!r}"
        raise UserError(f"{weights.source} {found}; {did_you_mean(own[0], number)}; or {fresh_head}")
    state = dict(weights.state)
    for key, fresh in layer.state_dict(prefix=f"{name}.").items():
        if (source := state.get(key)) is not None and source.shape[1:] == fresh.shape[1:]:
            state[key] = fresh.clone()
            state[key][rows] = source[[number[own[row]] for row in rows]].to(fresh.dtype)
    if len(rows) < len(own):
        known = {spelling(each): f" (it has {each!r})" for each in number}
        new = [f"{each!r}{known.get(spelling(each), '')}" for each in own if each not in number]
        names = ", ".join(new[:SHOWN_NAMES]) + (", ..." if len(new) > SHOWN_NAMES else "")
        _log.warning("%s has %d of %d classes; new in the classifier: %s", weights.source, len(rows), len(own), names)
    return replace(weights, state=state)
