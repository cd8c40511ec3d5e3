#!/usr/bin/env python
"""Convert published weights to a model directory (model.safetensors and config.json).

    tools/convert_weights.py google/vivit-b-16x2-kinetics400 --output models/vivit-b
    tools/convert_weights.py MCG-NJU/videomae-base --output models/videomae --num_classes 174
    tools/convert_weights.py timm/vit_base_patch16_224.augreg_in21k --output models/start --num_classes 400 \\
        --model.form factorised_encoder --model.temporal_depth 4 --model.token_learner.num_tokens 8
    tools/convert_weights.py vivit_fe.npz --output models/vivit-fe --clip.num_frames 32      Flax parameters, flattened

The name is a file, a directory, or owner/name[@revision] on the hub of Hugging Face. Settings of model and clip are
those of the weights unless given. Names and shapes that do not fit are errors; the report lists what was loaded,
resized, left fresh or left out.
"""

import argparse
from pathlib import Path

from command_line import ExperimentParser, make_experiment, positive

from vidtl.errors import UserError
from vidtl.runtime.files import new_directory, require_new_directory, say
from vidtl.runtime.signals import exit_on_error, run_tool


def parse() -> argparse.Namespace:
    parser = ExperimentParser("convert_weights.py NAME", "Convert published weights to a model directory.")
    parser.add_argument("name", help="File, directory, or owner/name[@revision] on the hub of Hugging Face")
    parser.add_argument("--output", type=Path, required=True, help="New or empty directory")
    text = "Text file with one class name per line, or in the format of a data set (default: the names of the weights)"
    parser.add_argument("--class_names", type=Path, help=text)
    text = "Classes of a fresh classifier (default: the classifier of the weights)"
    parser.add_argument("--num_classes", type=positive, help=text)
    text = "Image models: place of the patch embedding in a tubelet (default: %(default)s)"
    parser.add_argument("--inflation", choices=("central_frame", "average"), default="central_frame", help=text)
    text = "Tokens of the positions of a Flax ViViT, where they do not say it"
    parser.add_argument("--source_grid", type=int, nargs=3, metavar=("T", "H", "W"), help=text)
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_error():  # --help and mistakes end before the slow imports below
        parse()


from vidtl.annotations.text_files import read_class_list
from vidtl.models import build_model, save_model_directory
from vidtl.models.embedding import Grid
from vidtl.models.weights.fit import is_image_model
from vidtl.models.weights.hub import find_source, license_of
from vidtl.models.weights.load import LoadReport, grouped, load_weights
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published, settings_of_weights


def main() -> None:
    arguments = parse()
    require_new_directory(arguments.output)
    names = read_class_list(arguments.class_names).names.names if arguments.class_names else ()
    source = find_source(arguments.name)
    published = read_published(str(source))
    weights = published.weights
    config = make_experiment(arguments.settings, settings_of_weights(published, arguments.settings))
    if not (num_classes := arguments.num_classes or published.num_classes):
        raise UserError(f"--num_classes is not given; needed with {source}, which has no classifier")
    model = build_model(config.model, config.clip, num_classes)
    if is_image_model(published) and not arguments.num_classes:
        if changed := [key for key in arguments.settings if key.startswith("model.")]:
            raise UserError(f"--num_classes is not given; needed with {changed[0]}, as {source} is an image model")
        report = load_weights(model, weights)  # with its classifier
    else:
        grid = Grid(*arguments.source_grid) if arguments.source_grid else None
        new_head, inflation = bool(arguments.num_classes), arguments.inflation
        report = load_pretrained(model, published, new_head=new_head, inflation=inflation, source_grid=grid)
    model.class_names = names or (() if arguments.num_classes else tuple(weights.class_names))
    model.multi_label = None if arguments.num_classes else published.multi_label
    with new_directory(arguments.output) as temporary:
        save_model_directory(model, temporary)
    place = "" if arguments.name == str(source) else f" ({source})"
    say(f"source    {arguments.name}{place}", f"license   {license_of(source)}")
    print_report(report)
    say(f"written   {arguments.output}")


def print_report(report: LoadReport) -> None:
    """Print the names of all tensors by outcome."""
    outcomes = {"loaded": report.loaded, "resized": report.resized, "fresh": report.missing, "unused": report.unused}
    for outcome, names in outcomes.items():
        say(f"{outcome:9} {len(names)}")
        for name in grouped(names):
            say(f"          {name}")


if __name__ == "__main__":
    run_tool(main)
