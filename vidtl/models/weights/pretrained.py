"""Load weights from any source: choose the importer for a file or directory, and the names that may be missing."""

import logging
from dataclasses import replace
from pathlib import Path

from vidtl.errors import UserError, did_you_mean, spelling
from vidtl.models.base import CONFIG_FILE, VideoModel
from vidtl.models.directory import read_model_config, read_model_weights
from vidtl.models.embedding import Grid
from vidtl.models.t2t_vit import T2TViT
from vidtl.models.vivit import ViViT
from vidtl.models.weights.flax import Params, flax_weights, read_flax
from vidtl.models.weights.huggingface import read_huggingface
from vidtl.models.weights.image import NEW_PARTS, Inflation, image_vit_weights, read_t2t
from vidtl.models.weights.load import LoadReport, SourceWeights, load_weights, read_json

SHOWN_NAMES = 8
"""Class names in one line."""

_log = logging.getLogger(__name__)


def load_pretrained(
    model: VideoModel,
    source: Path,
    *,
    new_head: bool = False,
    inflation: Inflation = "central_frame",
    source_grid: Grid | None = None,
) -> LoadReport:
    """Load weights into `model`; sizes must agree, clips and classes may differ.

    Rows of the classifier follow the class names. Rows of classes that the source lacks keep their fresh weights.

    Args:
        source: a model directory of this library or of ViViT in transformers; a `.npz` of a Flax ViViT or image ViT; or
            a `.safetensors` or `.pth` of a timm image ViT, or of the authors' T2T-ViT for such a model.
        new_head: keep the fresh weights of the classifier (image ViTs: always).
        inflation: image ViTs only, see `image_vit_weights`.
        source_grid: Flax ViViTs only, tokens along time, height and width where the file leaves it open.

    Raises:
        UserError: the source is not one of these, or does not fit the model; or the model's classes have names, and
            the source has none of them, or no names.
    """
    weights, allow_missing = _read(model, source, inflation, source_grid)
    if new_head:
        head = f"{model.classifier()[0]}."
        left = [name for name in weights.state if name.startswith(head)]
        kept = {name: tensor for name, tensor in weights.state.items() if name not in left}
        weights = replace(weights, state=kept, unused=(*weights.unused, *left))
        allow_missing = (*allow_missing, f"{head}*")
    elif model.class_names:
        weights = _rows_by_name(model, weights)
    return load_weights(model, weights, allow_missing=allow_missing)


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


def _read(
    model: VideoModel, source: Path, inflation: Inflation, source_grid: Grid | None
) -> tuple[SourceWeights, tuple[str, ...]]:
    """Read the weights; also return patterns of the names that they may lack."""
    if source.is_dir():
        if "model_type" in read_json(source / CONFIG_FILE):
            return read_huggingface(source).weights, ()
        return read_model_weights(source, read_model_config(source)), ()
    if source.suffix == ".npz":
        params = read_flax(source)
        if _is_video(params, model):
            grids = _flax_grids(params, source_grid) if source_grid else None
            return flax_weights(params, str(source), grids), ()
    if isinstance(model, T2TViT):
        return read_t2t(source), ()
    if not isinstance(model, ViViT):
        raise UserError(f"{source} is no directory; allowed for a {type(model).__name__}: a model directory")
    return image_vit_weights(source, model, inflation=inflation), NEW_PARTS


def _is_video(params: Params, model: VideoModel) -> bool:
    """Recognize a ViViT's Flax parameters; one of single frames differs from an image ViT in its positions only."""
    kernel = params.get("embedding/kernel")
    if (kernel is not None and kernel.ndim == 5) or "SpatialTransformer/encoder_norm/scale" in params:
        return True
    positions = params.get("Transformer/posembed_input/pos_embedding")
    if positions is None or not isinstance(model, ViViT) or model.frames is None or model.grid.t == 1:
        return False
    return positions.shape[1:] == model.encoder.positions.weight.shape


def _flax_grids(params: Params, grid: Grid) -> dict[str, Grid]:
    """Return the grids of the position embeddings: of the whole clip, or of one timestep and of time."""
    of_timestep = "SpatialTransformer/posembed_input/pos_embedding" in params
    encoder = grid._replace(t=1) if of_timestep else grid
    return {"encoder.positions.weight": encoder, "temporal_encoder.positions.weight": Grid(grid.t, 1, 1)}
