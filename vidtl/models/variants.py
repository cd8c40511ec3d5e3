"""Sizes of the papers' models, and names that stand for a whole model.

The library's own names follow one grammar, and the papers' notations are understood too:

    vivit_{ti,s,b,l,h}{patch}x{tubelet}_{joint,fe,fsa,fdp}[_tl{tokens}at{block}[+{extra blocks}]][_v1][_fuser]
    B/16x2   ViViT-L/16x2 FE   16at12   8at18   16at18   16at18 L/10
"""

import re
from dataclasses import dataclass, replace
from itertools import product

from vidtl.config import TokenLearnerConfig, ViViTConfig
from vidtl.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Size:
    """Numbers behind a letter; MLPs are four times as wide as tokens."""

    width: int
    depth: int
    num_heads: int


SIZES = {
    "Ti": Size(width=192, depth=12, num_heads=3),
    "S": Size(width=384, depth=12, num_heads=6),
    "B": Size(width=768, depth=12, num_heads=12),
    "L": Size(width=1024, depth=24, num_heads=16),
    "H": Size(width=1280, depth=32, num_heads=16),
}
"""ViViT section 4.1; `Ti` and `S` as in the TokenLearner configurations."""

FORMS = {
    "joint": "joint",
    "fe": "factorised_encoder",
    "fsa": "factorised_self_attention",
    "fdp": "factorised_dot_product",
}

PAPER_MODELS = {
    "16at12": "vivit_l16x2_joint_tl16at12_v1",
    "8at18": "vivit_l16x2_joint_tl8at18+6_v1",
    "16at18": "vivit_l14x2_joint_tl16at18+11_v1",
    "16at18 L/14": "vivit_l14x2_joint_tl16at18+11_v1",
    "16at18 L/10": "vivit_l10x2_joint_tl16at18+11_v1",
}
"""TokenLearner's video models, whose published results are of version v1: `8at18` has 24 + 6 blocks, `16at18` 24 + 11.
L/10 needs frames of 220 pixels."""

_NAME = re.compile(
    r"vivit_(?P<size>ti|s|b|l|h)(?P<patch>\d+)x(?P<tubelet>\d+)_(?P<form>joint|fe|fsa|fdp)"
    r"(_tl(?P<tokens>\d+)at(?P<after>\d+)(\+(?P<extra>\d+))?(?P<v1>_v1)?(?P<fuser>_fuser)?)?"
)
_PAPER = re.compile(
    r"(vivit[-_ ]?)?(?P<size>ti|s|b|l|h)/(?P<patch>\d+)x(?P<tubelet>\d+)( (?P<form>joint|fe|fsa|fdp))?", re.IGNORECASE
)


def resolve_sizes(config: ViViTConfig) -> ViViTConfig:
    """The same settings with every size that was left at 0 taken from the letter."""
    size = SIZES[config.size]
    width = config.width or size.width
    return replace(
        config,
        width=width,
        depth=config.depth or size.depth,
        num_heads=config.num_heads or size.num_heads,
        mlp_width=config.mlp_width or 4 * width,
    )


def parse_variant(name: str) -> ViViTConfig:
    """Settings of the model that a name stands for.

    Pooling is as in the papers: a class token in the joint form and the factorised encoder without TokenLearner, else
    the mean. The paper's bare `B/16x2` is the joint form.

    Raises:
        UserError: no such name; the nearest one is told.
    """
    match = _NAME.fullmatch(_canonical(name))
    if match is None or (match["tokens"] and int(match["tokens"]) == 0):
        raise UserError(f"model is {name!r}; {did_you_mean(name.lower(), list_models())}")
    size = {letter.lower(): letter for letter in SIZES}[match["size"]]
    form = FORMS[match["form"]]
    has_class_token = match["tokens"] is None and form in ("joint", "factorised_encoder")
    return ViViTConfig(
        form=form,  # type: ignore[arg-type]
        size=size,  # type: ignore[arg-type]
        depth=SIZES[size].depth + int(match["extra"]) if match["extra"] else 0,
        tubelet=(int(match["tubelet"]), int(match["patch"]), int(match["patch"])),
        pooling="cls" if has_class_token else "mean",
        token_learner=TokenLearnerConfig(
            num_tokens=int(match["tokens"] or 0),
            after_block=int(match["after"] or 0),
            version="v1" if match["v1"] else "v1.1",
            fuser=bool(match["fuser"]),
        ),
    )


def list_models() -> list[str]:
    """Names for `create_model`: the papers' models and, for each size and form, TokenLearner at a quarter and a half.

    Any other number that fits the grammar makes a model as well. All are ViViTs; models of the other architectures are
    made by `build_model`.
    """
    names = list(PAPER_MODELS)
    backbones = (("ti", 16), ("s", 16), ("b", 16), ("l", 16), ("h", 14))
    for (letter, patch), form in product(backbones, FORMS):
        size = SIZES[letter.capitalize()]
        if form == "fdp" and size.num_heads % 2:
            continue
        depth = size.depth
        places = [f"_tl{tokens}at{after}" for tokens in (8, 16) for after in (depth // 4, depth // 2)]
        stages = ["", *places, f"{places[0]}_v1", f"{places[0]}_fuser", f"{places[0]}_v1_fuser"]
        names += [f"vivit_{letter}{patch}x2_{form}{stage}" for stage in stages]
    return names


def _canonical(name: str) -> str:
    """The grammar's name for a paper's one; any other name as it is."""
    stripped = re.sub(r"^token ?learner[- ]", "", name.strip(), flags=re.IGNORECASE).replace(" + ", " ")
    for paper, own in PAPER_MODELS.items():
        if stripped.lower() == paper.lower():
            return own
    if match := _PAPER.fullmatch(stripped):
        return f"vivit_{match['size']}{match['patch']}x{match['tubelet']}_{match['form'] or 'joint'}".lower()
    return stripped.lower()
