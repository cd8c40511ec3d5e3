"""Draw TokenLearner's maps over a video, or the attention rollout of a ViViT without TokenLearner; or training clips.

python tools/visualize.py --checkpoint runs/toy --num_videos 4          # of the run's evaluation split
python tools/visualize.py --checkpoint runs/toy --videos clip.mp4 clips/ --output_dir pictures/
python tools/visualize.py clips --config configs/toy.yaml               # augmented, as train.py gives them to the model

Each video gives a PNG (maps over time), a GIF and an MP4 (maps over the clip), and a JSON with entropy and overlap of
the maps over time. The exit code is 4 if a video could not be read.
"""

import json
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from command_line import EXIT_UNREADABLE, ExperimentParser, ModelParser, add_frame_rate, positive
from train import parse as parse_training

from vidtl.config import ClipConfig, ExperimentConfig
from vidtl.errors import UserError
from vidtl.runtime.signals import exit_on_error, run_tool

CLIPS = "clips"
MICRO_BATCH = 32  # clips of the largest micro-batch of `visualize.py clips`, which computes it without an accelerator
log = logging.getLogger("vidtl.visualize")


def visualize_parser() -> ModelParser:
    parser = ModelParser("visualize.py", "Draw token maps or attention rollout over videos.")
    text = "Videos and folders to draw; default: those of the evaluation split"
    parser.add_argument("--videos", type=str, nargs="+", help=text)
    parser.add_argument("--num_videos", type=positive, default=4, help="Number of videos, spread evenly over the split")
    add_frame_rate(parser)
    text = "Folder of the files; default: pictures/ in the folder of the run"
    parser.add_argument("--output_dir", type=Path, help=text)
    return parser


def parse_clips() -> tuple[Namespace, ExperimentConfig]:
    """Parse the command line of `visualize.py clips`, with settings as of train.py."""
    parser = ExperimentParser("visualize.py clips", "Draw training clips as train.py gives them to the model.")
    parser.add_argument("mode", choices=[CLIPS])
    parser.add_argument("--output_dir", type=Path, default=Path("pictures"), help="Folder of clips.png and clips.gif")
    return parse_training(parser)


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        parse_clips() if sys.argv[1:2] == [CLIPS] else visualize_parser().check()

import numpy as np
from initial_model import with_initial_weights
from trained_model import parse_with_model

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.video_files import find_videos, records_by_kind, split_refused
from vidtl.data.batch import VideoViews
from vidtl.data.gaps import find_gaps, without_gaps
from vidtl.data.loader import EvalLoader, TrainLoader, check_readable
from vidtl.data.protocols import get_protocol
from vidtl.models import VideoModel, load_model_directory
from vidtl.runtime.files import say, whole_file
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.logging import configure_logging
from vidtl.visualize.clips import MAX_CLIPS, TrainingClip, animate_clips, draw_clips, training_clips
from vidtl.visualize.map_figure import animate, draw_maps, write_gif, write_mp4
from vidtl.visualize.token_maps import clip_maps


class Subject(NamedTuple):
    """One video to draw, or the reason why it could not be read."""

    path: Path
    title: str
    video: VideoViews | str


def main() -> None:
    if sys.argv[1:2] == [CLIPS]:
        draw_training_clips(*parse_clips())
        return
    options, config, checkpoint = parse_with_model(visualize_parser())
    configure_logging(is_main_process=True)
    log.info("checkpoint %s", checkpoint)
    checkpoint.verify()
    model = load_model_directory(checkpoint.model_directory)

    folder = options.output_dir or checkpoint.output_folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    files, unreadable = options.videos, 0
    subjects = of_files(files, config, options.frame_rate) if files else of_split(config, options.num_videos)
    for number, subject in enumerate(subjects):
        if isinstance(subject.video, str):
            unreadable += 1
            log.warning("unreadable  %s: %s", subject.path, subject.video)
            continue
        written = draw(model, subject, subject.video, folder / f"{number:03d}")
        say(f"{subject.title}: {', '.join(map(str, written))}")
    if unreadable:
        sys.exit(EXIT_UNREADABLE)


def draw_training_clips(options: Namespace, config: ExperimentConfig) -> None:
    """Draw the first clips of a run, those of its first process; larger micro-batches are split over processes."""
    configure_logging(is_main_process=True)
    accelerator = make_accelerator(config.training.precision)
    config, _ = with_initial_weights(config, options.settings, accelerator)
    data, training = config.data, config.training
    description = load_description(data.dataset, data.root)
    records = read_records(description, data.train_split, Path(data.root), data.follow_links)
    records = without_gaps(records, find_gaps(records, data.manifest))
    check_readable(records, config)
    size, unit = training.batch_size, training.accumulation_steps * config.augmentation.repeats
    fewest = -(-size // (training.accumulation_steps * MICRO_BATCH))
    processes = next((n for n in range(fewest, size) if size % (n * unit) == 0), 1)
    clips: list[TrainingClip] = []
    for batch in TrainLoader(records, config, 0, processes).iterate():
        for failure in batch.failures:
            log.warning("unreadable  %s: %s", failure.path, failure.reason)
        clips += training_clips(batch.to(accelerator.device), config.clip, records.classes.names)
        if len(clips) >= MAX_CLIPS:
            break
    options.output_dir.mkdir(parents=True, exist_ok=True)
    png, gif = options.output_dir / "clips.png", options.output_dir / "clips.gif"
    draw_clips(clips[:MAX_CLIPS], png)
    write_gif(list(animate_clips(clips[:MAX_CLIPS], description.title)), gif, Fraction(8))
    say(f"{description.title}: {png}, {gif}")


def of_split(config: ExperimentConfig, count: int) -> Iterator[Subject]:
    """Read videos spread evenly over the evaluation split, with their classes."""
    data = config.data
    description = load_description(data.dataset, data.root)
    records = read_records(description, data.eval_split, Path(data.root), data.follow_links)
    check_readable(records, config)
    chosen = records.select(np.unique(np.linspace(0, len(records) - 1, count).astype(int)))
    for video in EvalLoader(chosen, get_protocol("center"), config.clip, config.data):
        names = ", ".join(chosen.classes.names[label] for label in chosen.labels(video.index))
        title = f"{chosen.ids[video.index]}: {names}"
        yield Subject(chosen.path(video.index), title, video.failure.reason if video.failure else video)


def of_files(paths: list[str], config: ExperimentConfig, frame_rate: float | None) -> Iterator[Subject]:
    """Read videos without annotations; first those that cannot be opened."""
    videos = find_videos(map(Path, paths), image_model=config.clip.num_frames == 1).videos
    if not videos:
        raise UserError(f"no videos in {', '.join(map(repr, paths))}")
    common = os.path.commonpath([video.path.absolute().parent for video in videos])  # two folders may share a name
    accepted, refusals = split_refused(videos, frame_rate)
    for video, reason in refusals:
        yield Subject(video.path, "", reason)
    for of_kind, records, data in records_by_kind(accepted, config.data, frame_rate):
        for views in EvalLoader(records, get_protocol("center"), config.clip, data):
            path = of_kind[views.index].path
            yield Subject(path, os.path.relpath(path, common), views.failure.reason if views.failure else views)


def draw(model: VideoModel, subject: Subject, video: VideoViews, stem: Path) -> list[Path]:
    """Draw the four files of one video."""
    assert video.pixels is not None
    maps = clip_maps(model, video.pixels, video.color)
    suffixes = ("png", "gif", "mp4", "json")
    png, gif, mp4, numbers = (stem.with_name(f"{maps.kind}-{stem.name}.{suffix}") for suffix in suffixes)
    rate = playing_rate(video, model.clip_config)
    draw_maps(maps.images, png, subject.title)
    pictures = list(animate(maps.images, maps.frames, subject.title))
    write_gif(pictures, gif, rate)
    write_mp4(pictures, mp4, rate)
    record = {"path": str(subject.path), "kind": maps.kind, **maps.images.record()}
    with whole_file(numbers) as file:
        json.dump(record, file, indent=1, allow_nan=False)
    return [png, gif, mp4, numbers]


def playing_rate(video: VideoViews, clip: ClipConfig) -> Fraction:
    """Return the frames per second of the clip at the speed of the video, between 1 and 25."""
    duration_s = max(video.duration_s, 0.04)
    rate = (clip.target_fps or video.num_frames / duration_s) / clip.stride
    if clip.sampling == "segments" or clip.num_frames == 1:
        rate = clip.num_frames / duration_s
    return Fraction(min(max(rate, 1.0), 25.0)).limit_denominator(1000)


if __name__ == "__main__":
    run_tool(main)
