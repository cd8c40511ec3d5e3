"""Say what a trained model sees in videos: files of any container, images, and folders of either.

python tools/predict.py clip.mp4 more_clips/ --checkpoint runs/toy
python tools/predict.py clips/ --checkpoint runs/toy --json --evaluation.protocol vivit_4x3 > predictions.jsonl

Folders are walked to the bottom, in the order of the names. No data set is needed: the class names are in the model.
With --json each video is one line of JSON with path, frames, duration_s, scores (class, probability, score; best first)
and reason, which is null unless the video could not be read. The exit code is 4 if one could not.
"""

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from command_line import ModelParser

from vidtl.errors import UserError
from vidtl.runtime.exit import exit_on_error, run_tool

EXIT_UNREADABLE = 4
TOP_K = 5

QUICK = "center"
"""The protocol unless the command line or its files name one, whatever the run was evaluated with."""

log = logging.getLogger("vidtl.predict")


def predict_parser() -> ModelParser:
    """The options of an experiment, whose `clip`, `data` and `evaluation` count here, and those of this tool."""
    parser = ModelParser("predict.py VIDEO...", "Say what a trained model sees in videos.")
    parser.add_argument("videos", type=str, nargs="+", help="Videos, images, and folders that hold some")
    parser.add_argument("--top_k", type=int, help=f"Classes per video, 0 for all; default: {TOP_K}")
    parser.add_argument("--threshold", type=float, help="Only classes of at least this probability, however many")
    parser.add_argument("--json", action="store_true", help="A line of JSON per video instead of a table")
    parser.add_argument("--frame_rate", type=float, help="Frames per second of folders of numbered images")
    return parser


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        predict_parser().check()

from rich.cells import cell_len
from trained_model import parse_with_model

from vidtl.config import ExperimentConfig
from vidtl.data.description import load_description
from vidtl.data.video_files import check_frame_rate, find_videos
from vidtl.evaluation.predict import Prediction, PredictionSettings, ScoredClass, predict
from vidtl.models import VideoModel, load_model_directory
from vidtl.runtime.escape import shown_text
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import make_progress


def main() -> None:
    options, config, checkpoint = parse_with_model(predict_parser())
    _check(options.top_k, options.threshold)
    check_frame_rate(options.frame_rate)
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)
    if accelerator.num_processes > 1:
        raise UserError("predict.py runs as one process; it was started with several")
    checkpoint.verify()
    model = load_model_directory(checkpoint.model_directory)
    model.to(accelerator.device)

    found = find_videos(map(Path, options.videos), image_model=model.clip_config.num_frames == 1)
    if found.ignored:
        log.info("%d files are neither videos nor images, such as %s", len(found.ignored), found.ignored[0])
    if not found.videos:
        raise UserError(f"no videos in {', '.join(map(repr, options.videos))}")
    settings = PredictionSettings(
        config=config,
        protocol=protocol_name(config, options.settings.get("evaluation.protocol", QUICK)),
        multi_label=is_multi_label(model, config),
        frame_rate=options.frame_rate,
    )
    top_k = options.top_k if options.top_k is not None else (0 if options.threshold is not None else TOP_K)
    unreadable = 0
    shown: list[tuple[Prediction, list[ScoredClass]]] = []
    with make_progress(is_main_process=True).task("predicting", "videos", len(found.videos)) as task:
        for prediction in predict(model, found.videos, settings, accelerator, task.update):
            unreadable += bool(prediction.reason)
            classes = prediction.best(top_k or None, options.threshold or 0.0)
            if options.json:
                print(json.dumps(json_record(prediction, classes)), flush=True)
            else:
                shown.append((prediction, classes))
    if shown:
        place = {video.path: number for number, video in enumerate(found.videos)}
        print("\n".join(table_lines(sorted(shown, key=lambda pair: place[pair[0].path]))))
    if unreadable:
        log.warning("%d of %d videos could not be read", unreadable, len(found.videos))
        sys.exit(EXIT_UNREADABLE)


def protocol_name(config: ExperimentConfig, asked_for: str) -> str:
    """Resolve `dataset`, which is the protocol of the data that the model was trained on."""
    return load_description(config.data.dataset).protocol if asked_for == "dataset" else asked_for


def is_multi_label(model: VideoModel, config: ExperimentConfig) -> bool:
    """What the model says; of models that do not, what their data set's description says, if it is here."""
    if model.multi_label is not None:
        return model.multi_label
    try:
        return load_description(config.data.dataset).multi_label
    except UserError:
        log.warning("the model does not say whether classes exclude each other; taken to (single label)")
        return False


def json_record(prediction: Prediction, classes: Sequence[ScoredClass]) -> dict[str, object]:
    """One line of the output; `json.dumps` writes ASCII, so that no name can do anything to a terminal."""
    readable = not prediction.reason
    return {
        "path": str(prediction.path),
        "frames": prediction.num_frames if readable else None,
        "duration_s": prediction.duration_s if readable else None,
        "scores": [{"class": name, "probability": p, "score": score} for name, p, score in classes]
        if readable
        else None,
        "reason": prediction.reason or None,
    }


def table_lines(predictions: Sequence[tuple[Prediction, Sequence[ScoredClass]]]) -> list[str]:
    """Aligned columns: video, frames, seconds, then classes with their probabilities, or the reason for having none."""
    rows = []
    for prediction, classes in predictions:
        row = [shown_text(str(prediction.path))]
        if not prediction.reason:
            row += [f"{prediction.num_frames} frames", f"{prediction.duration_s:.1f} s"]
            row += [f"{shown_text(each.name)} {100 * each.probability:.1f}%" for each in classes]
        rows.append(row)
    widths = [max(map(cell_len, column)) for column in zip_longest(*rows, fillvalue="")]
    reasons = [shown_text(prediction.reason) for prediction, _ in predictions]
    return [
        _aligned([*row, f"unreadable: {reason}"] if reason else row, widths)
        for row, reason in zip(rows, reasons, strict=True)
    ]


def _aligned(row: Sequence[str], widths: Iterable[int]) -> str:
    """Words to the left, figures (columns 2 and 3) to the right."""
    cells = []
    for column, (text, width) in enumerate(zip(row, widths, strict=False)):
        space = " " * (width - cell_len(text))
        cells.append(space + text if column in (1, 2) and not text.startswith("unreadable") else text + space)
    return "  ".join([*cells, *row[len(cells) :]]).rstrip()


def _check(top_k: int | None, threshold: float | None) -> None:
    if top_k is not None and top_k < 0:
        raise UserError(f"--top_k is {top_k}; allowed: 1 or more, or 0 for all classes")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold is {threshold}; allowed: a probability from 0 to 1")


if __name__ == "__main__":
    run_tool(main)
