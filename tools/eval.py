"""Evaluate a trained model: every annotated video exactly once, with the views of a named protocol.

One process:      python tools/eval.py --checkpoint runs/toy
Several, or GPUs: accelerate launch --config_file configs/accelerate/gpu_8.yaml tools/eval.py --checkpoint runs/toy

Settings come from the run and may be overridden: --evaluation.protocol vivit_4x3 takes twelve views of each video,
--evaluation.protocol center one, for a quick look. The same command again goes on where a killed one was, on any
number of processes; results of another model or other settings are never overwritten. A file of scores for Charades is
judged without a model:

                  python tools/eval.py --charades-submission scores.txt --annotations Charades_v1_test.csv
"""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from command_line import ModelParser, PlainParser

from vidtl.errors import UserError
from vidtl.runtime.exit import exit_on_error, run_tool

EXIT_UNREADABLE = 4

OPTION = "--charades-submission"
SUBMISSION_HELP = (
    "Judge this submission file (lines of a video id and 157 scores) by the official Charades rules instead of a "
    "model; needs --annotations, and no --checkpoint"
)
ANNOTATIONS_HELP = "With --charades-submission: the CSV of the split, such as Charades_v1_test.csv"

log = logging.getLogger("vidtl.eval")


def eval_parser() -> ModelParser:
    """The options of an experiment, and those of this tool."""
    parser = ModelParser("eval.py", "Evaluate a trained model.")
    parser.add_argument(
        "--output_dir", type=Path, help="Where the report goes; default: evaluation/STEP/ in the folder of the run"
    )
    parser.add_argument(
        "--html", choices=("true", "false"), default="true", help="Write report.html, with pictures of a few videos"
    )
    parser.add_argument("--strict", action="store_true", help="The same as --evaluation.strict true")
    parser.add_argument(OPTION, type=Path, help=SUBMISSION_HELP)
    parser.add_argument("--annotations", type=Path, help=ANNOTATIONS_HELP)
    return parser


def submission_options() -> argparse.Namespace | None:
    """Parse a command line that is about a submission file; None for any other."""
    if not any(argument.partition("=")[0] == OPTION for argument in sys.argv[1:]):
        return None
    parser = PlainParser(prog="eval.py", description="Judge a submission file by the official Charades rules.")
    parser.add_argument(OPTION, type=Path, required=True, help=SUBMISSION_HELP)
    parser.add_argument("--annotations", type=Path, required=True, help=ANNOTATIONS_HELP)
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        if not submission_options():
            eval_parser().check()

import numpy as np
from charades_submission import score_file
from trained_model import ClassOrder, load_for_classes, parse_with_model

from vidtl.data.dataset import check_readable, first_records
from vidtl.data.description import load_description, read_records
from vidtl.data.formats import READERS
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import protocol_of_run
from vidtl.evaluation.evaluator import evaluate
from vidtl.evaluation.fingerprint import evaluation_key
from vidtl.evaluation.html import draw_pictures, example_indices, remove_page, write_page
from vidtl.evaluation.partial import PartialResults
from vidtl.evaluation.provenance import check_same_origin, folder_name, origin_record
from vidtl.evaluation.report import metrics_record, summary_lines, write_report
from vidtl.evaluation.result import EvaluationResult
from vidtl.metrics.charades import write_submission
from vidtl.metrics.classification import unreadable_rows
from vidtl.runtime.launch import make_accelerator, on_main_process, wait_for_everyone
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import make_progress
from vidtl.training.checkpoint import Checkpoint, checkpoint_name


def main() -> None:
    if submission := submission_options():
        score_file(submission.charades_submission, submission.annotations)
        return
    options, config, checkpoint = parse_with_model(eval_parser())
    if options.annotations:
        raise UserError(f"--annotations is for {OPTION}; the annotations of a model's data come with --data.dataset")
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)

    description = load_description(config.data.dataset)
    records = read_records(description, config.data.eval_split, Path(config.data.root))
    records = first_records(records, config.evaluation.max_videos)
    protocol = protocol_of_run(config.evaluation.protocol, description.protocol)
    folder = (options.output_dir or default_folder(checkpoint)) / folder_name(config, protocol)
    if config.evaluation.single_frame:
        protocol = replace(protocol, name=f"{protocol.name}-single-frame")
    on_main_process(accelerator, checkpoint.verify)
    model = load_for_classes(checkpoint.model_directory, records.classes.names).to(accelerator.device)
    check_readable(records, config)

    key = on_main_process(accelerator, partial(evaluation_key, checkpoint, records, config, protocol, accelerator))
    origin = origin_record(options.checkpoint, checkpoint.step, checkpoint.averaged, key)
    on_main_process(accelerator, partial(check_same_origin, folder, origin))
    found_so_far = PartialResults(folder / "partial", key, len(records.classes))
    log.info("%d videos, %d process(es) on %s", len(records), accelerator.num_processes, accelerator.device.type)
    progress = make_progress(accelerator.is_main_process)
    make_loader = partial(
        EvalLoader, records, protocol, config.clip, config.data, single_frame=config.evaluation.single_frame
    )
    result = evaluate(model, make_loader, records, config, protocol, accelerator, progress, found_so_far)
    if accelerator.is_main_process:
        record = report(result, origin, folder, submit=READERS[description.format].official_scorer)
        found_so_far.remove()
        if options.html == "true":
            network = model.model if isinstance(model, ClassOrder) else model
            write_html(result, record, folder, partial(draw_pictures, network, records, config, protocol))
    sys.stdout.flush()
    wait_for_everyone(accelerator)  # one that ends with a code makes the launcher end the others
    if result.unreadable and (options.strict or config.evaluation.strict):
        sys.exit(EXIT_UNREADABLE)


def default_folder(checkpoint: Checkpoint) -> Path:
    """Return a folder per step in the folder of the run, or one in the model directory."""
    folder = checkpoint.output_folder / "evaluation"
    return folder if checkpoint.step is None else folder / checkpoint_name(checkpoint.step)


def report(result: EvaluationResult, origin: dict[str, Any], folder: Path, submit: bool) -> dict[str, Any]:
    """Write the files, print the summary and say where the files are; `submit`: one for the official scorer too."""
    record = origin | metrics_record(result)
    remove_page(folder)
    files = write_report(result, record, folder)
    print("\n".join(summary_lines(result, record)))
    if submit:
        files.append(folder / "charades_submission.txt")
        scored = np.flatnonzero(~unreadable_rows(result.scores))
        write_submission(files[-1], [result.ids[i] for i in scored], result.scores[scored])
    print(f"report  {folder}: {', '.join(file.name for file in files)}")
    return record


def write_html(
    result: EvaluationResult, record: dict[str, Any], folder: Path, draw: Callable[[list[int], Path], None]
) -> None:
    """Write the page. Its pictures are worth less than the metrics, so what goes wrong in drawing them is only told."""
    try:
        draw(example_indices(result), folder)
    except Exception as error:
        log.warning("the HTML report has no pictures: %s: %s", type(error).__name__, error)
    print(f"page    {write_page(result, record, folder)}")


if __name__ == "__main__":
    run_tool(main)
