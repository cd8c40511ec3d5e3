"""Evaluate a trained model: every annotated video exactly once, with the views of a named protocol.

One process:      python tools/eval.py --checkpoint runs/toy
Several, or GPUs: python tools/eval.py --checkpoint runs/toy --processes 8, or with any launch configuration
                  accelerate launch --config_file configs/accelerate/gpu_8.yaml tools/eval.py --checkpoint runs/toy

Settings are those of the run unless overridden: --evaluation.protocol vivit_4x3 takes twelve views of each video,
--evaluation.protocol center one. The same command continues a killed evaluation, on any number of processes; results of
another model or other settings are never overwritten. A file of scores for Charades is scored without a model:

                  python tools/eval.py --charades-submission scores.txt --annotations Charades_v1_test.csv
                  python tools/eval.py --charades-localization scores.txt --annotations Charades_v1_test.csv
"""

import argparse
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from command_line import EXIT_UNREADABLE, ModelParser, PlainParser
from processes import add_processes, start_processes

from vidtl.errors import UserError
from vidtl.runtime.files import say
from vidtl.runtime.signals import exit_on_error, run_tool

SUBMISSIONS = {
    "--charades-submission": "Score this file (lines of a video id and 157 scores) by the official Charades rules",
    "--charades-localization": "The same for localization: lines of a video id, a frame from 1 to 25 and 157 scores",
}

log = logging.getLogger("vidtl.eval")


def eval_parser() -> ModelParser:
    parser = ModelParser("eval.py", "Evaluate a trained model.")
    text = "Folder of the report; default: evaluation/STEP/ in the folder of the run"
    parser.add_argument("--output_dir", type=Path, help=text)
    text = "Write report.html, with pictures of a few videos"
    parser.add_argument("--html", choices=("true", "false"), default="true", help=text)
    text = "Fit probabilities and thresholds to this split, for predict.py: calibration.json beside the weights"
    parser.add_argument("--calibrate", action="store_true", help=text)
    parser.add_argument("--strict", action="store_true", help="Exit with code 4 if a video could not be read")
    add_processes(parser)
    add_submissions(parser, required=False)
    return parser


def add_submissions(parser: argparse.ArgumentParser, required: bool) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    for option, text in SUBMISSIONS.items():
        group.add_argument(option, type=Path, help=text)
    text = "With one of these: the CSV of the split, such as Charades_v1_test.csv"
    parser.add_argument("--annotations", type=Path, required=required, help=text)


def submission_options() -> argparse.Namespace | None:
    """Parse a command line with a submission file; None for any other."""
    if not any(argument.partition("=")[0] in SUBMISSIONS for argument in sys.argv[1:]):
        return None
    parser = PlainParser(prog="eval.py", description="Score a submission file by the official Charades rules.")
    add_submissions(parser, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        if not submission_options():
            start_processes(eval_parser().check().processes)

from charades_submission import score_file, score_localization
from torch import nn
from trained_model import ClassOrder, load_for_records, load_present, parse_with_model, processes_on_device

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.formats import READERS
from vidtl.annotations.records import Records
from vidtl.data.dataset import first_records
from vidtl.data.loader import EvalLoader, check_readable
from vidtl.data.protocols import LOCALIZATION, protocol_of_run
from vidtl.evaluation.calibration import fit_calibration, write_calibration
from vidtl.evaluation.evaluator import EvaluationResult, ScoreStore, evaluate
from vidtl.evaluation.localize import localize, point_windows
from vidtl.evaluation.page import draw_examples, remove_page, write_examples, write_page
from vidtl.evaluation.provenance import check_same_origin, evaluation_key, folder_name, origin_record
from vidtl.evaluation.report import metrics_record, percent, summary_lines, write_report
from vidtl.metrics.charades import write_submission
from vidtl.metrics.charades_localize import write_localization
from vidtl.runtime.launch import make_accelerator, on_main_process, wait_for_everyone
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import Progress
from vidtl.training.checkpoint import Checkpoint
from vidtl.training.checkpoint_directory import checkpoint_name


def main() -> None:
    if submission := submission_options():
        score = score_localization if submission.charades_localization else score_file
        score(submission.charades_localization or submission.charades_submission, submission.annotations)
        return
    options, config, checkpoint = parse_with_model(eval_parser())
    if options.annotations:
        raise UserError(f"--annotations is for {' and '.join(SUBMISSIONS)}; allowed here: --data.dataset")
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)
    log.info("checkpoint %s", checkpoint)

    description = load_description(config.data.dataset, config.data.root)
    records = read_records(description, config.data.eval_split, Path(config.data.root), config.data.follow_links)
    records = first_records(records, config.evaluation.max_videos)
    protocol = protocol_of_run(config.evaluation.protocol, description.protocol, LOCALIZATION)

    def load(found: Checkpoint) -> tuple[nn.Module, Records, dict[str, Any]]:
        model, all_records = load_for_records(found.model_directory, records)
        return model, all_records, evaluation_key(found, all_records, config, protocol, accelerator)

    checkpoint, (model, records, key) = load_present(options, checkpoint, load, accelerator)
    model.to(accelerator.device)
    step = "" if checkpoint.step is None else checkpoint_name(checkpoint.step)
    parent = options.output_dir or checkpoint.output_folder / "evaluation" / step
    folder = parent / folder_name(config, protocol)
    origin = origin_record(options.checkpoint, checkpoint.step, checkpoint.averaged, key, config)
    on_main_process(accelerator, partial(check_same_origin, folder, origin))
    check_readable(records, config)
    store = ScoreStore(folder / "partial", key, len(records.classes))
    log.info("%d videos, %s", len(records), processes_on_device(accelerator))
    sections = config.clip, config.evaluation, protocol, accelerator, Progress(accelerator.is_main_process), store
    if protocol is LOCALIZATION:
        windows = on_main_process(accelerator, partial(point_windows, records, config.clip, config.data))
        failures, scored = windows.failures, windows.records
    else:
        failures, scored = {}, records
    make_loader = partial(EvalLoader, scored, protocol, config.clip, config.data, failures=failures)
    result = evaluate(model, make_loader, scored, *sections)
    result = localize(result, records, windows) if protocol is LOCALIZATION else result
    if accelerator.is_main_process:
        report(result, origin, folder, submit=READERS[description.format].submission == "charades")
        store.remove()
        if options.calibrate:
            calibrate(result, checkpoint, config.data.eval_split, fingerprint=key["model"])
        if options.html == "true":
            network = model.model if isinstance(model, ClassOrder) else model
            write_html(result, folder, partial(draw_examples, network, records, config, protocol))
    sys.stdout.flush()
    wait_for_everyone(accelerator)  # the launcher ends all processes once one exits with a code
    if result.unreadable and options.strict:
        sys.exit(EXIT_UNREADABLE)


def report(result: EvaluationResult, origin: dict[str, Any], folder: Path, submit: bool) -> None:
    """Write the files and print the summary; with `submit`, also a file for the official Charades scorer."""
    record = origin | metrics_record(result)
    remove_page(folder)
    files = write_report(result, record, folder)
    say(*summary_lines(result, record))
    if submit:
        files.append(folder / "charades_submission.txt")
        rows = result.outcomes.readable.nonzero()[0]
        write_submission(files[-1], [result.ids[row] for row in rows], result.outcomes.scores[rows])
        if result.outcomes.points:
            files.append(folder / "charades_localization_submission.txt")
            write_localization(files[-1], result.ids, result.outcomes.points[0])
    say(f"report  {folder}: {', '.join(file.name for file in files)}")


def calibrate(result: EvaluationResult, checkpoint: Checkpoint, split: str, fingerprint: str) -> None:
    """Write temperature and thresholds for `predict.py`, and print how well the probabilities fit without and with."""
    origin = {"fingerprint": fingerprint, "step": checkpoint.step, "split": split, "protocol": result.protocol}
    found = fit_calibration(result.outcomes, result.class_names, **origin)
    (nll, nll_after), (ece, ece_after) = found.nll, found.ece
    changes = f"NLL {nll:.3f} -> {nll_after:.3f}, ECE {percent(ece)} -> {percent(ece_after)}"
    say(f"calibration  {write_calibration(found, checkpoint)}: {found}; {changes}")


def write_html(result: EvaluationResult, folder: Path, draw: Callable[[list[int], Path], None]) -> None:
    """Write the page; a failure to draw its pictures is logged."""
    numbers = write_examples(result, folder)
    try:
        draw(numbers, folder)
    except Exception as error:
        log.warning("the HTML report has no pictures: %s: %s", type(error).__name__, error)
    say(f"page    {write_page(folder)}")


if __name__ == "__main__":
    run_tool(main)
