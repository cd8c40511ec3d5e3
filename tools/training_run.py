"""One training run: data, model and task from a configuration, and a summary at the end."""

import logging
import operator
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from initial_model import initial_model, with_initial_weights
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from trained_model import processes_on_device

from vidtl.annotations.description import DatasetDescription, load_description, read_splits
from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, ExperimentConfig
from vidtl.config.checks import require_each
from vidtl.data.batch import ClipBatch, batch_input
from vidtl.data.dataset import first_records
from vidtl.data.gaps import Gap, check_classes, find_gaps, reason_kind, without_gaps
from vidtl.data.loader import EvalLoader, TrainLoader, check_readable, rarest_labels
from vidtl.data.protocols import get_protocol
from vidtl.errors import UserError
from vidtl.evaluation.evaluator import evaluate
from vidtl.metrics import chance_levels
from vidtl.models import VideoModel, save_model_directory
from vidtl.models.complexity import count_multiply_adds, count_parameters
from vidtl.runtime.files import printable, say
from vidtl.runtime.launch import make_accelerator, on_main_process, resolve_precision
from vidtl.runtime.logging import check_trackers, configure_logging
from vidtl.runtime.progress import Progress
from vidtl.runtime.signals import StoppedBySignalError
from vidtl.training.checkpoint_directory import checkpoint_name
from vidtl.training.loop import TrainingSummary, train
from vidtl.training.optimizer import learning_rate_of, peak_learning_rate
from vidtl.training.run_directory import RunDirectory
from vidtl.training.step import TrainingTask
from vidtl.visualize.clips import draw_clips, training_clips
from vidtl.visualize.curves import draw_curves

SMALL_MODEL = 10_000_000  # parameters
FEW_CLIPS = {True: 50, False: 1_000}  # per class, by whether the model is small
ADVICE = "configs/finetune_videomae_b.yaml starts from published weights (docs/weights.md)"
MOST_KINDS = 5  # of reasons, in the line that counts videos left out

log = logging.getLogger("vidtl.train")


def start_run(given: Mapping[str, Any], config: ExperimentConfig, output_dir: Path) -> None:
    """Train, draw the curves and print a summary; `given` has the settings of file and command line by dotted key."""
    check_trackers(config.training.trackers)
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)
    config, published = with_initial_weights(config, given, accelerator)

    data, description = config.data, load_description(config.data.dataset, config.data.root)
    all_train_records, all_eval_records = read_data(config, description)
    train_records, left_out = leave_out_gaps(all_train_records, config, RunDirectory(output_dir), accelerator)
    for records in filter(len, (train_records, all_eval_records)):
        check_readable(records, config)
    check_classes(data, train_records, all_train_records, all_eval_records)
    eval_records = first_records(all_eval_records, config.evaluation.max_videos)
    model, fresh = initial_model(config, train_records, published)
    loader = TrainLoader(train_records, config, accelerator.process_index, accelerator.num_processes)
    peak = peak_learning_rate(config.optimizer, config.training.batch_size)
    rate = learning_rate_of(config.schedule, peak, loader.steps_per_epoch, loader.samples_per_epoch)
    about = {}
    if accelerator.is_main_process:
        about = describe_data_and_model(config, description, train_records, eval_records, model)
        log.info("%s, %s", processes_on_device(accelerator), resolve_precision(config.training.precision))
        steps = f"{loader.total_steps} steps of {loader.batch_size} clips ({config.schedule.length})"
        log.info("%s, peak learning rate %g", steps, rate.peak)

    progress = Progress(accelerator.is_main_process)
    task = TrainingTask(
        loader=loader,
        make_input=partial(batch_input, clip=config.clip),
        num_classes=model.num_classes,
        multi_label=train_records.multi_label,
        class_counts=torch.from_numpy(train_records.class_counts()),
        save_model=save_model_directory,
        num_videos=len(train_records),
        data_sha256=train_records.labels_sha256(),
        fresh=fresh,
        left_out=left_out,
        draw=partial(draw_batch, config.clip, train_records.classes.names, output_dir / "clips.png"),
        about=about,
    )
    center = get_protocol("center")
    make_loader = partial(EvalLoader, eval_records, center, config.clip, config.data)

    def score(model: nn.Module) -> dict[str, float]:
        settings = (config.clip, config.evaluation, center)
        return evaluate(model, make_loader, eval_records, *settings, accelerator, progress)[0].metrics

    try:
        summary = train(config, output_dir, accelerator, task, model, score if data.eval_split else None, progress)
    except StoppedBySignalError:
        if accelerator.is_main_process:
            draw_run(output_dir, eval_records)
        raise
    if accelerator.is_main_process:
        draw_run(output_dir, eval_records)
        print_summary(summary, output_dir)


def leave_out_gaps(
    records: Records, config: ExperimentConfig, run: RunDirectory, accelerator: Accelerator
) -> tuple[Records, list[Gap]]:
    """Separate the videos to train on from known gaps, alike in every process; log the gaps in one line."""
    gaps = on_main_process(accelerator, lambda: run.left_out(lambda: find_gaps(records, config.data.manifest)))
    if gaps and accelerator.is_main_process:
        kinds = Counter(reason_kind(gap.reason) for gap in gaps).most_common(MOST_KINDS)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
        message = "%d of %d videos are known to be missing or broken and left out of training (%s); see %s"
        log.warning(message, len(gaps), len(records), counts, run.left_out_file)
    return without_gaps(records, gaps), gaps


def read_data(config: ExperimentConfig, description: DatasetDescription) -> tuple[Records, Records]:
    """Read the records to train on and to evaluate on, none of the latter without a split for them."""
    names = (config.data.train_split, *filter(None, [config.data.eval_split]))
    splits = read_splits(description, names, Path(config.data.root), config.data.follow_links)
    training = splits[names[0]]
    if len(names) > 1:
        return training, splits[names[1]]
    keys, allowed = "best_metric early_stop_evaluations", "none without evaluations; data.eval_split names their split"
    require_each(config.training, "training", keys, operator.not_, allowed)
    splits = ", ".join(description.splits)
    log.warning("training without evaluations: data.eval_split names none of the splits of the data set, %s", splits)
    return training, training.select([])


def describe_data_and_model(
    config: ExperimentConfig, dataset: DatasetDescription, records: Records, eval_records: Records, model: VideoModel
) -> dict[str, Any]:
    """Log data and model, one line each, and return their description for `summary.json`."""
    parameters, classes = count_parameters(model), len(records.classes)
    counts = (len(records), len(eval_records), classes)
    log.info("%s: %d videos to train on, %d to evaluate on, %d classes", dataset.title, *counts)
    if config.data.balance != "none":
        log.info("data.balance %s: %s", config.data.balance, describe_balance(records, config.data.balance))
    log.info("model: %s, %s parameters", config.model.architecture, f"{parameters:,}")
    clips_per_class = len(records.distinct_labels()[1]) / classes
    if clips_per_class < FEW_CLIPS[parameters < SMALL_MODEL] and not config.training.init_from:
        log.warning("%.0f clips per class are few to train this model from scratch; %s", clips_per_class, ADVICE)
    return {
        "model": {
            "architecture": config.model.architecture,
            "parameters": parameters,
            "multiply_adds_per_clip": count_multiply_adds(model, config.clip),
        },
        "data": {
            "title": dataset.title,
            "videos": {"train": len(records), "evaluation": len(eval_records)},
            "classes": classes,
        },
    }


def describe_balance(records: Records, balance: str) -> str:
    """Return the smallest and the largest class of the videos, and the effect of `data.balance` on them."""
    classes, counts = np.unique(records.distinct_labels()[1], return_counts=True)
    ends = (counts.argmin(), counts.argmax())
    small, large = (f"{printable(records.classes.names[classes[k]], 40)} ({counts[k]} videos)" for k in ends)
    if balance == "loss":
        return f"smallest class {small}, largest {large}; losses weigh inversely to these counts"
    share = len(records) / len(np.unique(rarest_labels(records)))
    kind = "rarest label of a video" if records.multi_label else "class"
    return f"smallest class {small}, largest {large}; an epoch visits {share:.3g} videos of each {kind}"


def draw_batch(clip: ClipConfig, class_names: Sequence[str], path: Path, batch: ClipBatch) -> NDArray[np.uint8]:
    """Draw the clips of a micro-batch into a file, and return the picture."""
    draw_clips(training_clips(batch, clip, class_names), path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def draw_run(output_dir: Path, eval_records: Records) -> None:
    """Draw the curves so far, with chance levels as dashed lines; the run is finished without them, too."""
    chance = chance_levels(eval_records.video_targets(), eval_records.multi_label)
    try:
        draw_curves(RunDirectory(output_dir).metrics_file, output_dir / "curves.png", chance)
    except UserError as error:
        log.warning("%s", error)


def print_summary(summary: TrainingSummary, output_dir: Path) -> None:
    """Print the results of the run, their files, and the next command."""
    for path, count in summary.unreadable.items():
        say(f"unreadable  {path} ({count} attempts)")
    for name, (replaced, requested) in summary.replaced.items():
        say(f"replaced    class {name}: {replaced} of {requested} clips")
    if best := summary.best:
        say(f"best        {best} at step {best.step}: {summary.checkpoint.with_name(checkpoint_name(best.step))}")
    if not best or best.step != summary.steps:
        say(f"last        step {summary.steps}: {summary.checkpoint}")
    say(f"curves      {output_dir / 'curves.png'}", f"summary     {RunDirectory(output_dir).summary_file}")
    tool, *videos = ["eval.py"] if summary.metrics else ["predict.py", "VIDEO"]
    installed = ["vidtl", tool.removesuffix(".py")] if shutil.which("vidtl") else []
    command = installed or ["python", str(Path(sys.argv[0]).with_name(tool))]
    command += [*videos, "--checkpoint", str(output_dir)]
    say(f"next        {shlex.join(command)}")
