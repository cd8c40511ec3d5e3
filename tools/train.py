"""Train a video classifier.

One process:      python tools/train.py --config configs/toy.yaml --output_dir runs/toy
Several, or GPUs: python tools/train.py --processes 8 --config ..., or with any launch configuration
                  accelerate launch --config_file configs/accelerate/gpu_8.yaml tools/train.py --config ...

The same command again resumes from the newest checkpoint of the output directory.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from command_line import ExperimentParser, parse_experiment
from processes import add_processes, start_processes

from vidtl.config import ExperimentConfig
from vidtl.errors import existing
from vidtl.runtime.signals import run_tool


def train_parser() -> ExperimentParser:
    parser = ExperimentParser("train.py", "Train a video classifier.")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Folder of the run: checkpoints, metrics.jsonl, curves.png"
    )
    add_processes(parser)
    return parser


def parse(parser: ExperimentParser) -> tuple[argparse.Namespace, ExperimentConfig]:
    """Parse the command line; names the data set, root or protocol that does not exist, too."""
    options, config = parse_experiment(parser)
    from vidtl.annotations.description import load_description
    from vidtl.data.protocols import protocol_of_run

    description = load_description(config.data.dataset, config.data.root)
    if config.data.eval_split not in description.splits and "data.eval_split" not in options.settings:
        config = replace(config, data=replace(config.data, eval_split=""))
    protocol_of_run(config.evaluation.protocol, description.protocol)
    existing(Path(config.data.root), "data.root")
    return options, config


def main() -> None:
    options, config = parse(train_parser())
    start_processes(options.processes)
    from training_run import start_run  # mistakes do not wait for the seconds that the import of torch takes

    start_run(options.settings, config, options.output_dir)


if __name__ == "__main__":
    run_tool(main)
