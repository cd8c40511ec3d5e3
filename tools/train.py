"""Train a video classifier.

One process:      python tools/train.py --config configs/toy.yaml --output_dir runs/toy
Several, or GPUs: accelerate launch --config_file configs/accelerate/gpu_8.yaml tools/train.py --config ...

The same command again resumes from the newest checkpoint of the output directory.
"""

from pathlib import Path

from command_line import arguments_of_process, experiment_parser, parse_experiment

from vidtl.runtime.launch import run_tool


def main() -> None:
    parser = experiment_parser("train.py", "Train a video classifier.")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Folder of the run: checkpoints, metrics.jsonl, curves.png"
    )
    options, config = parse_experiment(parser, arguments_of_process())
    from training_run import start_run  # after the options: torch takes seconds to import

    start_run(config, options.output_dir)


if __name__ == "__main__":
    run_tool(main)
