"""The authors' T2T-ViT."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidtl.config.model import ARCHITECTURES
from vidtl.models.weights.image_vit import find_grid
from vidtl.models.weights.load import PublishedModel, SourceWeights, count_modules, rename
from vidtl.models.weights.settings import shape_of

_T2T_NAMES = (
    (r"^module\.", ""),
    (r"^tokens_to_token\.attention1\.", "tokens.layers.0."),
    (r"^tokens_to_token\.attention2\.", "tokens.layers.1."),
    (r"^tokens_to_token\.project\.", "tokens.proj."),
    (r"^(tokens\.layers\.\d\.)w$", r"\1features"),
    (r"^(tokens\.layers\.\d\.)attn\.", r"\1"),
    (r"^(tokens\.layers\.\d\.mlp\.)0\.", r"\1fc1."),
    (r"^(tokens\.layers\.\d\.mlp\.)2\.", r"\1fc2."),
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", "positions.weight"),
)


def read_t2t(_: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> PublishedModel:
    """Read weights, with heads of width 64; clips are as in the authors' evaluation, crops of 0.9 of the short side."""
    renamed = rename(state, _T2T_NAMES)
    width = shape_of(renamed, "tokens.proj.weight", source)[0]
    grid = find_grid(shape_of(renamed, "positions.weight", source)[0], 1, 16, None, source)
    model = {
        "architecture": "t2t_vit",
        "tokenizer": "t2t_performer" if "tokens.layers.0.features" in renamed else "t2t_transformer",
        "width": width,
        "depth": count_modules(renamed, r"blocks\.(\d+)\."),
        "mlp_width": shape_of(renamed, "blocks.0.mlp.fc1.weight", source)[0],
        "token_width": shape_of(renamed, "tokens.layers.0.proj.weight", source)[0],
    }
    if width % 64 == 0:
        model["num_heads"] = width // 64
    size = (16 * grid.h, 16 * grid.w)  # the strides of the three splits are 4, 2 and 2
    clip = {**ARCHITECTURES["t2t_vit"].clip, "frame_size": size, "short_side": size[0] * 10 // 18 * 2}
    weights = SourceWeights(source=source, state=renamed, grids={"positions.weight": grid})
    return PublishedModel(model=model, clip=clip, weights=weights)
