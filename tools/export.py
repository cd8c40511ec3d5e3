"""Write a trained model as a file that runs without vidtl: ONNX (.onnx) or torch.export (.pt2), or for transformers.

    python tools/export.py --checkpoint runs/k400 --output k400.onnx
    python tools/export.py --checkpoint runs/k400 --output k400.pt2 --batch 8
    python tools/export.py --checkpoint runs/k400 --output k400_hf --format transformers

Input   input_BTCHW, float32 [B, T, 3, H, W]: RGB in [0, 1] less the mean, divided by the std, of T frames
Output  logits_BK, float32 [B, K]: scores before softmax, or before the sigmoid where multi_label is true

The file has T, H, W, mean, std, stride and target_fps (clip), the names of the K classes (class_names), multi_label,
architecture and vidtl_version as JSON: metadata property "vidtl" of .onnx, extra file "vidtl.json" of .pt2.
The file is compared with the model on random clips. If the logits differ by more than the tolerance, nothing is written
and the exit code is 2. ONNX needs: pip install -e '.[export]'

transformers: a directory for VivitForVideoClassification.from_pretrained and VivitImageProcessor, of a ViViT of the
joint form with a class token and without TokenLearner. It needs no package; it is read back and compared likewise.
"""

import argparse
from pathlib import Path

from command_line import PlainParser, add_checkpoint, add_tokens, make_experiment, positive, settings_of_file

from vidtl.errors import UserError
from vidtl.runtime.files import require_new_directory, say
from vidtl.runtime.signals import exit_on_error, run_tool
from vidtl.training.checkpoint import Checkpoint, find_checkpoint, require_directory


def parse() -> argparse.Namespace:
    parser = PlainParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint(parser)
    add_tokens(parser, several=False)
    parser.add_argument("--output", type=Path, required=True, help="file to write, .onnx or .pt2, or new directory")
    text = "default: that of the suffix of --output"
    parser.add_argument("--format", choices=("transformers",), help=text)
    text = "clips per call: N, or any number (default: dynamic)"
    parser.add_argument(
        "--batch", type=lambda text: None if text == "dynamic" else positive(text), metavar="N|dynamic", help=text
    )
    text = "largest difference allowed, as a share of the largest logit (default: %(default)g)"
    parser.add_argument("--tolerance", type=float, default=1e-4, help=text)
    arguments = parser.parse_args()
    if arguments.format and arguments.batch:
        raise UserError(f"--batch is {arguments.batch}; allowed without --format transformers, which takes any number")
    require_directory(arguments.checkpoint)
    return arguments


if __name__ == "__main__":
    with exit_on_error():  # --help and mistakes end before the slow imports below
        parse()

from trained_model import with_tokens

from vidtl.models import load_model_directory
from vidtl.models.export import check_output, export_model
from vidtl.models.export_transformers import export_transformers


def main() -> None:
    arguments = parse()
    output = arguments.output
    require_new_directory(output) if arguments.format else check_output(output)
    checkpoint = used_by_evaluation(find_checkpoint(arguments.checkpoint, arguments.step))
    say(f"checkpoint {checkpoint}")
    checkpoint.verify()
    directory = checkpoint.model_directory
    model, _ = with_tokens(load_model_directory(directory), arguments, checkpoint)
    if arguments.format:
        checks = [export_transformers(model, output, arguments.tolerance)]
    else:
        checks = export_model(model, output, arguments.batch, arguments.tolerance)
    for check in checks:
        say(f"check   {check}")
    size = sum(file.stat().st_size for file in ([output] if output.is_file() else output.iterdir()))
    say(f"written {output} ({size / 1e6:.1f} MB)")


def used_by_evaluation(checkpoint: Checkpoint) -> Checkpoint:
    """Select the weights that `tools/eval.py` takes: averaged ones where the run has them and evaluates them."""
    if checkpoint.experiment_file is None:
        return checkpoint
    config = make_experiment(settings_of_file(checkpoint.experiment_file))
    return checkpoint.with_average() if config.evaluation.averaged_weights else checkpoint


if __name__ == "__main__":
    run_tool(main)
