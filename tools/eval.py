"""Evaluate a trained model: every annotated video exactly once, with the views of a named protocol.

One process:      python tools/eval.py --checkpoint runs/toy
Several, or GPUs: accelerate launch --config_file configs/accelerate/gpu_8.yaml tools/eval.py --checkpoint runs/toy

Settings come from the run and may be overridden, for example --evaluation.protocol vivit_4x3.
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path

from command_line import experiment_parser
from trained_model import load_for_classes, parse_with_model, run_folder

from vidtl.data.dataset import check_readable, first_records
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import protocol_of_run
from vidtl.evaluation.evaluator import EvaluationResult, evaluate
from vidtl.evaluation.report import summary_lines, write_report
from vidtl.runtime.launch import make_accelerator, run_tool
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import make_progress

EXIT_UNREADABLE = 4

log = logging.getLogger("vidtl.eval")


def main() -> None:
    parser = experiment_parser("eval.py", "Evaluate a trained model.")
    parser.add_argument(
        "--output_dir", type=Path, help="Where the report goes; default: evaluation/ in the folder of the run"
    )
    options, config, directory = parse_with_model(parser)
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)

    description = load_description(config.data.dataset)
    records = read_records(description, config.data.eval_split, Path(config.data.root))
    records = first_records(records, config.evaluation.max_videos)
    protocol = protocol_of_run(config.evaluation.protocol, description.protocol)
    if config.evaluation.single_frame:
        protocol = replace(protocol, name=f"{protocol.name}-single-frame")
    model = load_for_classes(directory, records.classes.names).to(accelerator.device)
    check_readable(records, config)

    log.info("%d videos, %d process(es) on %s", len(records), accelerator.num_processes, accelerator.device.type)
    loader = EvalLoader(records, config, protocol, accelerator.process_index, accelerator.num_processes)
    progress = make_progress(accelerator.is_main_process)
    with progress.task("evaluating", "videos", len(loader)) as task:
        result = evaluate(model, loader, records, config, protocol, accelerator, task.update)
    if accelerator.is_main_process:
        folder = options.output_dir or run_folder(directory) / "evaluation"
        report(result, folder / f"{config.data.eval_split}-{protocol.name}")
    if config.evaluation.strict and result.unreadable:
        sys.exit(EXIT_UNREADABLE)


def report(result: EvaluationResult, folder: Path) -> None:
    """Write the files, print the summary and say where the files are."""
    files = write_report(result, folder)
    print("\n".join(summary_lines(result)))
    print(f"report  {folder}: {', '.join(file.name for file in files)}")


if __name__ == "__main__":
    run_tool(main)
