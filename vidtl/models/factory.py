"""Models from a configuration or from a name.

Names of ViViT follow one grammar; the notations of the papers are allowed too:

    vivit_{ti,s,b,l,h}{patch}x{tubelet}_{joint,fe,fsa,fdp}[_tl{tokens}at{block}[+{extra blocks}]][_v1][_fuser]
    B/16x2   ViViT-L/16x2 FE   16at12   8at18   16at18   16at18 L/10

Other families: `t2t_vit_14`, `t2t_vit_t_14` (transformer tokens), `mini_vit`, and pytorchvideo's names.
"""

import re
from itertools import product

from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.model import ARCHITECTURES, model_arguments, resolve_model
from vidtl.errors import UserError, did_you_mean
from vidtl.models.base import VideoModel
from vidtl.models.baselines import PytorchVideoModel
from vidtl.models.mini_vit import MiniViT
from vidtl.models.t2t_vit import T2TViT
from vidtl.models.token_learner import Version
from vidtl.models.vivit import Form, ViViT

MODELS: dict[str, type[VideoModel]] = {
    "vivit": ViViT,
    "t2t_vit": T2TViT,
    "mini_vit": MiniViT,
    "pytorchvideo": PytorchVideoModel,
}

FORMS: dict[str, Form] = {
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
"""TokenLearner's video models, published as v1: `8at18` has 24 + 6 blocks, `16at18` 24 + 11; L/10 needs 220 pixels."""

_SIZES = {letter.lower(): letter for letter in ARCHITECTURES["vivit"].sizes}
_SIZE = rf"(?P<size>{'|'.join(_SIZES)})"
_NAME = re.compile(
    rf"vivit_{_SIZE}(?P<patch>\d+)x(?P<tubelet>\d+)_(?P<form>{'|'.join(FORMS)})"
    r"(_tl(?P<tokens>\d+)at(?P<after>\d+)(\+(?P<extra>\d+))?(?P<v1>_v1)?(?P<fuser>_fuser)?)?"
)
_PAPER = re.compile(rf"(vivit[-_ ]?)?{_SIZE}/(?P<patch>\d+)x(?P<tubelet>\d+)( (?P<form>{'|'.join(FORMS)}))?")

_OTHER_NAMES: dict[str, dict[str, str]] = {
    **{
        f"t2t_vit_{letter}{size}": {"architecture": "t2t_vit", "size": size, "tokenizer": tokenizer}
        for letter, tokenizer in (("", "t2t_performer"), ("t_", "t2t_transformer"))
        for size in ARCHITECTURES["t2t_vit"].sizes
    },
    "mini_vit": {"architecture": "mini_vit"},
    **{name: {"architecture": "pytorchvideo", "size": name} for name in ARCHITECTURES["pytorchvideo"].sizes},
}


def build_model(config: ModelConfig, clip: ClipConfig, num_classes: int) -> VideoModel:
    """Build the model of a configuration, with fresh weights; UserError where settings contradict each other."""
    resolved = resolve_model(config)
    named = {"name": resolved.size} if resolved.architecture == "pytorchvideo" else {}
    arguments = named | model_arguments(resolved, clip)
    model = MODELS[resolved.architecture](**arguments, num_classes=num_classes)
    model.model_config, model.clip_config = resolved, clip
    model.choose_tokens(resolved.token_learner)
    return model


def parse_name(name: str) -> ModelConfig:
    """Return the settings of a name.

    Pooling is as in the papers: a class token in the joint form and the factorised encoder without TokenLearner, else
    the mean. The paper's bare `B/16x2` is the joint form. UserError: an unknown name; the message has the nearest one.
    """
    canonical = _canonical(name)
    if canonical in _OTHER_NAMES:
        return ModelConfig(**_OTHER_NAMES[canonical])  # type: ignore[arg-type]
    match = _NAME.fullmatch(canonical)
    if match is None or (match["tokens"] and int(match["tokens"]) == 0):
        raise UserError(f"model is {name!r}; {did_you_mean(name.lower(), list_models())}")
    size = _SIZES[match["size"]]
    form = FORMS[match["form"]]
    has_class_token = match["tokens"] is None and form in ("joint", "factorised_encoder")
    version: Version = "v1" if match["v1"] else "v1.1"
    stage = TokenLearnerConfig(num_tokens=0)
    if match["tokens"]:
        tokens, after = int(match["tokens"]), int(match["after"])
        stage = TokenLearnerConfig(num_tokens=tokens, after_block=after, version=version, fuser=bool(match["fuser"]))
    return ModelConfig(
        size=size,
        form=form,
        depth=ARCHITECTURES["vivit"].sizes[size]["depth"] + int(match["extra"]) if match["extra"] else None,
        tubelet=(int(match["tubelet"]), int(match["patch"]), int(match["patch"])),
        pooling="cls" if has_class_token else "mean",
        token_learner=stage,
    )


def list_models() -> list[str]:
    """Return names for `create_model`; of ViViT, the papers' and each size and form, with and without TokenLearner."""
    names = list(PAPER_MODELS)
    for (letter, size), form in product(ARCHITECTURES["vivit"].sizes.items(), FORMS):
        if form == "fdp" and size["num_heads"] % 2:
            continue
        places = [f"_tl{tokens}at{size['depth'] // part}" for tokens in (8, 16) for part in (4, 2)]
        stages = ["", *places, f"{places[0]}_v1", f"{places[0]}_fuser", f"{places[0]}_v1_fuser"]
        names += [f"vivit_{letter.lower()}{14 if letter == 'H' else 16}x2_{form}{stage}" for stage in stages]
    return [*names, *_OTHER_NAMES]


def _canonical(name: str) -> str:
    """Return the name in the grammar for a name of a paper; any other name in lower case."""
    stripped = re.sub(r"^token ?learner[- ]", "", name.strip().lower()).replace(" + ", " ")
    if match := _PAPER.fullmatch(stripped):
        return f"vivit_{match['size']}{match['patch']}x{match['tubelet']}_{match['form'] or 'joint'}"
    return {paper.lower(): own for paper, own in PAPER_MODELS.items()}.get(stripped, stripped)
