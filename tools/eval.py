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
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from command_line import EXIT_UNREADABLE, ModelParser, PlainParser, add_tokens
from processes import add_processes, start_processes

from vidtl.errors import UserError
from vidtl.runtime.files import say, whole_file
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
    add_tokens(parser)
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
from trained_model import load_for_records, load_present, parse_with_model, processes_on_device, with_tokens

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
from vidtl.evaluation.report import finite, metrics_record, percent, summary_lines, write_report
from vidtl.evaluation.scoring import output_layout
from vidtl.evaluation.token_budget import TokenScores, token_rows
from vidtl.metrics.charades import write_submission
from vidtl.metrics.charades_localize import write_localization
from vidtl.models import VideoModel
from vidtl.runtime.launch import make_accelerator, on_main_process, wait_for_everyone
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import Progress
from vidtl.training.checkpoint import Checkpoint
from vidtl.training.checkpoint_directory import checkpoint_name
from vidtl.visualize.curves import draw_token_curves


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

    def load(found: Checkpoint) -> tuple[VideoModel | TokenScores, dict[str, Any], Records, dict[str, Any]]:
        model, all_records = load_for_records(found.model_directory, records)
        key = evaluation_key(found, all_records, config, protocol, accelerator)
        return *with_tokens(model, options, found, all_records.multi_label), all_records, key

    checkpoint, (network, tokens, records, key) = load_present(options, checkpoint, load, accelerator)
    model = network.model if isinstance(network, TokenScores) else network
    counts = network.counts if isinstance(network, TokenScores) and network.confidence is None else ()
    if options.calibrate and tokens and model.elastic_tokens not in counts:
        raise UserError(f"--calibrate is given with --tokens {tokens['tokens']}; allowed: K,K,... with all tokens")
    step = "" if checkpoint.step is None else checkpoint_name(checkpoint.step)
    parent = options.output_dir or checkpoint.output_folder / "evaluation" / step
    folder = parent / folder_name(config, protocol, tokens.get("tokens", ""))
    origin = origin_record(options.checkpoint, checkpoint.step, checkpoint.averaged, key, config)
    origin["settings"] |= tokens
    parts = {folder / f"tokens-{k}": origin | {"settings": origin["settings"] | {"tokens": str(k)}} for k in counts}
    parts = parts or {folder: origin}
    on_main_process(accelerator, lambda: [check_same_origin(*part) for part in parts.items()])
    check_readable(records, config)
    store = ScoreStore(folder / "partial", key | tokens, output_layout(network, len(records.classes))[1])
    log.info("%d videos, %s", len(records), processes_on_device(accelerator))
    sections = config.clip, config.evaluation, protocol, accelerator, Progress(accelerator.is_main_process), store
    find = partial(point_windows, records, config.clip, config.data)
    windows = on_main_process(accelerator, find) if protocol is LOCALIZATION else None
    failures, scored = (windows.failures, windows.records) if windows else ({}, records)
    make_loader = partial(EvalLoader, scored, protocol, config.clip, config.data, failures=failures)
    results = evaluate(network.to(accelerator.device), make_loader, scored, *sections)
    rows = token_rows(results, network) if accelerator.is_main_process and isinstance(network, TokenScores) else []
    results = [localize(result, records, windows) if windows else result for result in results]
    if accelerator.is_main_process:
        report(results, parts, submit=READERS[description.format].submission == "charades")
        if rows:
            write_tokens(rows, folder)
        store.remove()
        if options.calibrate:
            calibrate(results, counts or [model.elastic_tokens], checkpoint, config.data.eval_split, key["model"])
        if options.html == "true":
            for result, place in zip(results, parts, strict=True):
                write_html(result, place, partial(draw_examples, model, records, config, protocol))
    sys.stdout.flush()
    wait_for_everyone(accelerator)  # the launcher ends all processes once one exits with a code
    if results[0].unreadable and options.strict:
        sys.exit(EXIT_UNREADABLE)


def report(results: list[EvaluationResult], parts: dict[Path, dict[str, Any]], submit: bool) -> None:
    """Write the files of each folder and print the last summary; with `submit`, also files for the Charades scorers."""
    for result, (folder, origin) in zip(results, parts.items(), strict=True):
        record = origin | metrics_record(result)
        remove_page(folder)
        files = write_report(result, record, folder)
        if result is results[-1]:
            say(*summary_lines(result, record))
        if submit:
            files.append(folder / "charades_submission.txt")
            rows = result.outcomes.readable.nonzero()[0]
            write_submission(files[-1], [result.ids[row] for row in rows], result.outcomes.scores[rows])
            if result.outcomes.points:
                files.append(folder / "charades_localization_submission.txt")
                write_localization(files[-1], result.ids, result.outcomes.points[0])
        say(f"report  {folder}: {', '.join(file.name for file in files)}")


def write_tokens(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write, print and draw `token_rows`."""
    with whole_file(folder / "tokens.json") as file:
        json.dump({"rows": finite(rows)}, file, indent=1)
    *_, metric = rows[0]
    say("".join(f"{name:>20}" for name in rows[0]))
    for row in rows:
        say("".join(f"{each:>20,}" if isinstance(each, int) else f"{percent(each):>20}" for each in row.values()))
    if "share" in rows[0]:
        say(f"mean multiply-adds per clip: {sum(row['share'] * row['with_retries'] for row in rows):,.0f}")
    else:
        points = [(row["multiply_adds"], row[metric], str(row["tokens"])) for row in rows]
        draw_token_curves({"tokens per timestep": points}, metric, folder / "tokens.png")


def calibrate(
    results: list[EvaluationResult], counts: Sequence[int], checkpoint: Checkpoint, split: str, fingerprint: str
) -> None:
    """Write temperature and thresholds of the last result, temperatures by `counts` of tokens, and print the fit."""
    origin = {"fingerprint": fingerprint, "step": checkpoint.step, "split": split, "protocol": results[0].protocol}
    fitted = [fit_calibration(result.outcomes, result.class_names, **origin) for result in results]
    temperatures = {str(count): each.temperature for count, each in zip(counts, fitted, strict=True) if count}
    found = replace(fitted[-1], token_temperatures=temperatures)
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
