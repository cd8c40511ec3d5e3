#!/usr/bin/env python
"""Convert weights of other projects to a model directory (model.safetensors and config.json).

    tools/convert_weights.py vivit-b-16x2-kinetics400/ models/vivit-b       a directory of Hugging Face's ViViT
    tools/convert_weights.py vivit_fe.npz models/vivit-fe --num_frames 32   Flax parameters of a ViViT, flattened
    tools/convert_weights.py B_16.npz models/start --model vivit_b16x2_fe_tl8at3 --num_classes 400
                                                                            an image ViT (.npz, or timm's state dict)
    tools/convert_weights.py 81.5_T2T_ViT_14.pth.tar models/t2t-14          the authors' T2T-ViT

Names and shapes that do not fit are errors; the report lists what was resized or left out.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

from command_line import PlainParser

from vidtl.config import ClipConfig, ModelConfig
from vidtl.config.checks import choices_of
from vidtl.errors import UserError
from vidtl.runtime.signals import exit_on_error, run_tool


def positive(text: str) -> int:
    """Parse a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: a whole number, 1 or more")
    return int(text)


def parse() -> argparse.Namespace:
    """Parse the command line; options left out are `None`, so that `check_options` sees which were given."""
    parser = PlainParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="directory or file")
    parser.add_argument("output", type=Path, help="new or empty directory")
    parser.add_argument("--num_frames", type=positive, help="frames per clip (default: the source's, or 32)")
    parser.add_argument("--frame_size", type=int, nargs=2, metavar=("H", "W"), help="default: the source's, or 224 224")
    text = "text file with one class name per line, or in the format of a data set"
    parser.add_argument("--class_names", type=Path, help=text)
    flax = parser.add_argument_group("Flax ViViTs, whose parameters leave some settings open")
    forms = choices_of(get_type_hints(ModelConfig)["form"])
    flax.add_argument("--form", choices=forms, help="needed for factorised_dot_product alone")
    flax.add_argument("--attention_order", choices=("time_space", "space_time"), help="default: time_space")
    flax.add_argument("--pooling", choices=("mean", "max", "sum"), help="without a class token; default: mean")
    flax.add_argument("--after_block", type=int, help="blocks before TokenLearner; needed where there is no fuser")
    flax.add_argument("--token_learner_pooling", choices=("sum", "mean"), help="TokenLearner v1; default: sum")
    flax.add_argument("--source_grid", type=int, nargs=3, metavar=("T", "H", "W"), help="tokens of the positions")
    t2t = parser.add_argument_group("T2T-ViTs")
    text = "attention heads; default: width / 64, as in every published model"
    t2t.add_argument("--num_heads", type=positive, help=text)
    image = parser.add_argument_group("image ViTs")
    image.add_argument("--model", help="name of the ViViT to start, such as vivit_b16x2_fe_tl8at3")
    image.add_argument("--num_classes", type=positive, help="classes of the new classifier")
    image.add_argument("--inflation", choices=("central_frame", "average"), help="default: central_frame")
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_error():  # --help and mistakes end before the slow imports below
        parse()

from vidtl.annotations.text_files import read_class_list
from vidtl.models import VideoModel, build_model, create_model, save_model_directory
from vidtl.models.embedding import Grid
from vidtl.models.weights.flax import Params, flax_weights, infer_vivit_config, read_flax
from vidtl.models.weights.huggingface import read_huggingface
from vidtl.models.weights.image import infer_t2t_config, is_t2t, read_t2t, t2t_clip
from vidtl.models.weights.load import read_state
from vidtl.models.weights.pretrained import load_pretrained

APPLIES = {
    "a Hugging Face directory": {"num_frames", "frame_size", "class_names"},
    "Flax parameters of a ViViT": {
        *("num_frames", "frame_size", "class_names", "form", "attention_order", "pooling", "after_block"),
        *("token_learner_pooling", "source_grid"),
    },
    "a T2T-ViT": {"frame_size", "class_names", "num_heads"},
    "an image ViT": {"model", "num_classes", "num_frames", "frame_size", "class_names", "inflation"},
}


def main() -> None:
    """Convert one source and print what was loaded."""
    arguments = parse()
    output = arguments.output
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output} exists and is no empty directory; allowed: a new or empty one")
    names = read_class_list(arguments.class_names).names.names if arguments.class_names else ()
    model = build(arguments)
    grid = Grid(*arguments.source_grid) if arguments.source_grid else None
    inflation = arguments.inflation or "central_frame"
    report = load_pretrained(model, arguments.source, inflation=inflation, source_grid=grid)
    model.class_names = names or model.class_names
    save_model_directory(model, output)
    print(f"{report}\nwritten to {output}")


def build(arguments: argparse.Namespace) -> VideoModel:
    """Build the model for the source, with fresh weights and the class names of the source."""
    source = arguments.source
    if source.is_dir():
        check_options(arguments, "a Hugging Face directory")
        found = read_huggingface(source)
        model = build_model(found.model, with_clip(found.clip, arguments), found.weights.num_classes)
        model.class_names = tuple(found.weights.class_names)
        return model
    params = read_flax(source) if source.suffix == ".npz" else {}
    if "embedding/kernel" in params and params["embedding/kernel"].ndim == 5:
        check_options(arguments, "Flax parameters of a ViViT")
        return build_flax(arguments, params)
    if source.suffix != ".npz" and is_t2t(read_state(source)):
        check_options(arguments, "a T2T-ViT")
        return build_t2t(arguments)
    check_options(arguments, "an image ViT")
    if arguments.model is None or arguments.num_classes is None:
        raise UserError(f"{source} may be an image ViT; needed: --model and --num_classes of the ViViT to start")
    clip = with_clip(ClipConfig(), arguments)
    return create_model(arguments.model, arguments.num_classes, clip.num_frames, clip.frame_size)


def build_flax(arguments: argparse.Namespace, params: Params) -> VideoModel:
    """Build a ViViT from its parameters and, for settings without parameters, from the options."""
    config = infer_vivit_config(params, form=arguments.form, after_block=arguments.after_block)
    order, pooling = arguments.attention_order or "time_space", arguments.pooling or config.pooling
    stage = replace(config.token_learner, pooling=arguments.token_learner_pooling or "sum")
    config = replace(config, attention_order=order, pooling=pooling, token_learner=stage)
    num_classes = flax_weights(params, str(arguments.source)).num_classes
    return build_model(config, with_clip(ClipConfig(), arguments), num_classes)


def build_t2t(arguments: argparse.Namespace) -> VideoModel:
    """Build a T2T-ViT for the images of its authors, or of another size."""
    weights = read_t2t(arguments.source)
    config = infer_t2t_config(weights)
    config = replace(config, num_heads=arguments.num_heads or config.num_heads)
    clip = t2t_clip(weights, arguments.frame_size and tuple(arguments.frame_size))
    return build_model(config, clip, weights.num_classes)


def with_clip(clip: ClipConfig, arguments: argparse.Namespace) -> ClipConfig:
    """Return the clip with the length and size of the options."""
    size = tuple(arguments.frame_size or clip.frame_size)
    num_frames = arguments.num_frames or clip.num_frames
    return replace(clip, num_frames=num_frames, frame_size=size, short_side=max(clip.short_side, *size))


def check_options(arguments: argparse.Namespace, kind: str) -> None:
    """Raise a UserError for an option without effect on this kind of source."""
    given = {name for name, value in vars(arguments).items() if value is not None} - {"source", "output"}
    for name in sorted(given - APPLIES[kind]):
        raise UserError(f"--{name} does not apply: {arguments.source} is read as {kind}")


if __name__ == "__main__":
    run_tool(main)
