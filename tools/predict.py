"""Predict classes of videos: files of any container, images, and folders of either.

python tools/predict.py clip.mp4 more_clips/ --checkpoint runs/toy
python tools/predict.py clips/ --checkpoint runs/toy --csv > predictions.csv
python tools/predict.py clips/ --checkpoint runs/toy --json --evaluation.protocol vivit_4x3 > predictions.jsonl
python tools/predict.py long.mp4 --checkpoint runs/toy --timeline --output timelines/ --overlay long_classes.mp4
python tools/predict.py --checkpoint runs/ssv2 --data.eval_split test --submission test.csv

Folders are searched recursively, in the order of the names. The class names are in the model, so no data set is needed.
With --json each video is one line of JSON with path, frames, duration_s, scores (class, probability, score; best first)
and reason (null for readable videos). With --csv it is a row with path, reason, class_1, probability_1, class_2 and so
on; control characters are escapes, and formulas get an apostrophe. The exit code is 4 if a video could not be read.

Probabilities are calibrated if eval.py --calibrate has been run for the checkpoint; then videos with any number of
classes show those above their thresholds, unless --threshold or --top_k is given.

With --submission the videos are those of a split, which needs no labels, and the file has the official form of Charades
or Something-Something V2 for these, and is a CSV for other data sets. The settings are those of an evaluation.
"""

import csv
import json
import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from command_line import EXIT_UNREADABLE, ModelParser, add_frame_rate, add_tokens

from vidtl.errors import UserError
from vidtl.runtime.signals import exit_on_error, run_tool

TOP_K, PROTOCOL = 5, "center"  # defaults
log = logging.getLogger("vidtl.predict")


def predict_parser() -> ModelParser:
    parser = ModelParser("predict.py [VIDEO...]", "Predict the classes of videos with a trained model.")
    parser.add_argument("videos", type=str, nargs="*", help="Videos, images, and folders that hold some")
    text = "Write a file for the videos of --data.eval_split, which may lack labels, instead of VIDEO..."
    parser.add_argument("--submission", type=Path, help=text)
    parser.add_argument("--top_k", type=int, help=f"Classes per video, 0 for all; default: {TOP_K}")
    parser.add_argument("--threshold", type=float, help="Only classes of at least this probability")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="A line of JSON per video instead of a table")
    forms.add_argument("--csv", action="store_true", help="A row for a spreadsheet per video instead of a table")
    add_frame_rate(parser)
    add_tokens(parser)
    group = parser.add_argument_group("timeline")
    group.add_argument("--timeline", action="store_true", help="Segments of time with their class, per video")
    text = "From the start of a window to that of the next, as '8 frames' or '0.5 s'; default: half a window"
    group.add_argument("--hop", help=text)
    text = "Join segments of one class that are less than this apart; default: 0"
    group.add_argument("--gap", type=float, metavar="SECONDS", help=text)
    text = "Folder for windows.jsonl, segments.csv and a picture per video"
    group.add_argument("--output", type=Path, metavar="FOLDER", help=text)
    text = "Write the video, one only, with its --top_k best classes at each time (default: 3)"
    group.add_argument("--overlay", type=Path, metavar="OUT.mp4", help=text)
    return parser


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        predict_parser().check()

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.cells import cell_len
from timeline import check_timeline, print_timelines
from trained_model import load_for_records, parse_with_model, with_tokens

from vidtl.annotations.description import load_description, read_unlabeled
from vidtl.annotations.formats import READERS
from vidtl.annotations.video_files import VideoFile, find_videos
from vidtl.config import ExperimentConfig
from vidtl.config.checks import require
from vidtl.data.dataset import first_records
from vidtl.data.loader import check_readable
from vidtl.data.protocols import protocol_of_run
from vidtl.evaluation.calibration import FILE_NAME, read_calibration
from vidtl.evaluation.predict import Prediction, PredictionSettings, ScoredClass, output_names, predict, predict_records
from vidtl.evaluation.submission import write_predicted
from vidtl.evaluation.token_budget import TokenScores
from vidtl.models import VideoModel, load_model_directory
from vidtl.models.directory import read_model_config
from vidtl.runtime.files import printable, say, spreadsheet_cell
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import Progress
from vidtl.training.checkpoint import Checkpoint


def main() -> None:
    options, config, checkpoint = parse_with_model(predict_parser())
    require((options.top_k or 0) >= 0, "--top_k", options.top_k, "1 or more, or 0 for all classes")
    require(0 <= (options.threshold or 0) <= 1, "--threshold", options.threshold, "a probability from 0 to 1")
    check_timeline(options)
    names = "videos", "top_k", "threshold", "json", "csv", "frame_rate", "timeline"
    given = [name for name in names if getattr(options, name)]
    if options.submission and given:
        raise UserError(f"--submission and {given[0]} are given; allowed: one of them")
    if len(options.tokens or ()) > 1 and options.confidence is None:
        raise UserError(f"--tokens is {','.join(map(str, options.tokens))}; allowed: one number, or --confidence, too")
    if not options.submission and not options.videos:
        raise UserError("no VIDEO is given; allowed: some, or --submission FILE for those of a split")
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)
    log.info("checkpoint %s", checkpoint)
    if accelerator.num_processes > 1:
        raise UserError("predict.py runs as one process; it was started with several")
    checkpoint.verify()
    (write_split if options.submission else print_files)(options, config, checkpoint, accelerator)


def write_split(options: Namespace, config: ExperimentConfig, checkpoint: Checkpoint, accelerator: Accelerator) -> None:
    """Write the predictions for a split."""
    split, file = config.data.eval_split, options.submission
    if file.is_dir():  # before hours of work
        raise UserError(f"--submission is {str(file)!r}, a folder; the name of a file is needed")
    description = load_description(config.data.dataset, config.data.root)
    saved = read_model_config(checkpoint.model_directory)
    class_names = output_names(saved.class_names, saved.num_outputs)
    records = read_unlabeled(description, split, Path(config.data.root), class_names, config.data.follow_links)
    records = first_records(records, config.evaluation.max_videos)
    model, records = load_for_records(checkpoint.model_directory, records)
    network = with_tokens(model, options, checkpoint, records.multi_label)[0].to(accelerator.device)
    check_readable(records, config)
    protocol = protocol_of_run(config.evaluation.protocol, description.protocol)
    predictions: list[Prediction] = []
    with Progress().task("predicting", "videos", len(records)) as task:
        for prediction in predict_records(network, records, config, protocol, accelerator):
            predictions.append(prediction)
            task.update(len(predictions))
    form = READERS[description.format].submission
    write_predicted(form, file, list(records.ids), predictions)
    say(f"submission  {file}: {len(records)} videos of split {split}, form {form}")
    for prediction in predictions:
        if prediction.reason:
            say(f"unreadable  {prediction.path}: {prediction.reason}")
    end(sum(bool(prediction.reason) for prediction in predictions), len(records), network)


def print_files(options: Namespace, config: ExperimentConfig, checkpoint: Checkpoint, accelerator: Accelerator) -> None:
    """Print the predictions for files and folders."""
    model = load_model_directory(checkpoint.model_directory)
    found = find_videos(map(Path, options.videos), image_model=model.clip_config.num_frames == 1)
    if found.ignored:
        log.info("%d files are neither videos nor images, such as %s", len(found.ignored), found.ignored[0])
    if not found.videos:
        raise UserError(f"no videos in {', '.join(map(repr, options.videos))}")
    protocol = options.settings.get("evaluation.protocol", PROTOCOL)
    if protocol == "dataset":
        protocol = load_description(config.data.dataset, config.data.root).protocol
    multi_label, threshold = is_multi_label(model, config), options.threshold
    calibration = read_calibration(checkpoint, model, multi_label)
    network = with_tokens(model, options, checkpoint, multi_label)[0].to(accelerator.device)
    if calibration and options.tokens is not None:  # a cascade divides by the temperatures itself
        of_one = calibration.token_temperatures.get(str(*options.tokens), 1.0) if len(options.tokens) == 1 else 1.0
        calibration = replace(calibration, temperature=of_one)
    if calibration:
        log.info("%s: %s", FILE_NAME, calibration)
        if threshold is None and (options.top_k is None or options.timeline) and multi_label:
            threshold = np.array(list(calibration.thresholds.values()))
    common = {"multi_label": multi_label, "frame_rate": options.frame_rate, "calibration": calibration}
    settings = PredictionSettings(config=config, protocol=protocol, network=network, **common)
    show = print_timelines if options.timeline else print_predictions
    end(show(options, model, found.videos, settings, accelerator, threshold), len(found.videos), network)


def print_predictions(
    options: Namespace,
    model: VideoModel,
    videos: Sequence[VideoFile],
    settings: PredictionSettings,
    accelerator: Accelerator,
    threshold: float | NDArray[np.float64] | None,
) -> int:
    """Print the classes of each file; return the number of unreadable files."""
    usual, make_row = TOP_K if threshold is None else None, csv_row if options.csv else table_row
    top_k = usual if options.top_k is None else options.top_k or None
    unreadable, rows = 0, dict[Path, list[str]]()
    with Progress().task("predicting", "videos", len(videos)) as task:
        for done, prediction in enumerate(predict(model, videos, settings, accelerator), start=1):
            task.update(done)
            unreadable += bool(prediction.reason)
            classes = prediction.best(top_k, 0.0 if threshold is None else threshold)
            if options.json:
                print(json.dumps(json_record(prediction, classes)), flush=True)
            else:
                rows[prediction.path] = make_row(prediction, classes)
    ordered = [rows[video.path] for video in videos if rows]
    if options.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(with_header(ordered))
    elif rows:
        print("\n".join(aligned(ordered)))
    return unreadable


def end(unreadable: int, count: int, network: VideoModel | TokenScores | None = None) -> None:
    """Log how many tokens were enough, and exit with the code of unreadable videos if there are any."""
    if isinstance(network, TokenScores):
        log.info("clips by tokens: %s", ", ".join(map("{}: {}".format, network.counts, network.ended_C)))
    if unreadable:
        log.warning("%d of %d videos could not be read", unreadable, count)
        sys.exit(EXIT_UNREADABLE)


def is_multi_label(model: VideoModel, config: ExperimentConfig) -> bool:
    """Return the kind of labels of the model, or of its data set."""
    try:
        if model.multi_label is None:
            return load_description(config.data.dataset, config.data.root).multi_label
        return model.multi_label
    except UserError:
        log.warning("the model has no kind of labels; single label is assumed")
        return False


def json_record(prediction: Prediction, classes: Sequence[ScoredClass]) -> dict[str, object]:
    """Make one line of the output; `json.dumps` writes ASCII, which is safe in a terminal."""
    scores = [{"class": name, "probability": round(p, 4), "score": score} for name, p, score in classes]
    found = {"frames": prediction.num_frames, "duration_s": round(prediction.duration_s, 3), "scores": scores}
    found = dict.fromkeys(found) if prediction.reason else found
    return {"path": str(prediction.path), **found, "reason": prediction.reason or None}


def table_row(prediction: Prediction, classes: Sequence[ScoredClass]) -> list[str]:
    """Format video, frames, seconds and classes with their probabilities, or video and reason."""
    path = printable(str(prediction.path))
    if prediction.reason:
        return [path, f"unreadable: {printable(prediction.reason)}"]
    shown = [f"{printable(each.name)} {100 * each.probability:.1f}%" for each in classes]
    return [path, f"{prediction.num_frames} frames", f"{prediction.duration_s:.1f} s", *shown]


def csv_row(prediction: Prediction, classes: Sequence[ScoredClass]) -> list[str]:
    """Format path, reason, and classes each with its probability as cells that no spreadsheet takes for formulas."""
    cells = [cell for each in classes for cell in (each.name, f"{each.probability:.4f}")]
    return list(map(spreadsheet_cell, [str(prediction.path), prediction.reason, *cells]))


def with_header(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Put names above the columns, and fill shorter rows with empty cells."""
    width = max(map(len, rows))
    numbered = [f"{part}_{place}" for place in range(1, width // 2) for part in ("class", "probability")]
    return [["path", "reason", *numbered], *([*row, *[""] * (width - len(row))] for row in rows)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells of each column to one width; frames and seconds to the right, reasons not at all."""
    columns = zip_longest(*(row if len(row) > 2 else row[:1] for row in rows), fillvalue="")
    widths = [max(map(cell_len, column)) for column in columns]

    def cell(text: str, column: int, is_reason: bool) -> str:
        space = "" if is_reason else " " * (widths[column] - cell_len(text))
        return space + text if column in (1, 2) else text + space

    return ["  ".join(cell(text, i, i > 0 and len(row) == 2) for i, text in enumerate(row)).rstrip() for row in rows]


if __name__ == "__main__":
    run_tool(main)
