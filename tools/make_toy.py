"""Generate a toy data set: small H.264 files of moving patches whose class only time can tell.

python tools/make_toy.py data/toy
python tools/make_toy.py data/toy_leader --task leader
python tools/make_toy.py data/toy_multilabel --multi_label
"""

import argparse
import time
from dataclasses import fields
from pathlib import Path

from command_line import PlainParser, positive
from toy_set import ToySettings, make_toy

from vidtl.runtime.files import say
from vidtl.runtime.progress import Progress
from vidtl.runtime.signals import run_tool


def main() -> None:
    defaults = ToySettings()
    parser = PlainParser(
        prog="make_toy.py",
        description="Generate a toy data set; a directory that holds the same set already is left alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("directory", type=Path, help="where annotations and videos go: data.root of a run")
    parser.add_argument("--videos_per_class_train", type=int, default=defaults.videos_per_class_train, help="of each")
    parser.add_argument("--videos_per_class_val", type=int, default=defaults.videos_per_class_val, help="of each")
    parser.add_argument("--task", default=defaults.task, help="motions, of 8 classes, or leader, of 20")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="another seed gives another set")
    parser.add_argument(
        "--multi_label", action="store_true", help="several motions per video, annotated as Charades (toy_multilabel)"
    )
    parser.add_argument("--num_processes", type=positive, default=2, help="processes that draw; the files are the same")
    options = parser.parse_args()
    settings = ToySettings(**{field.name: getattr(options, field.name) for field in fields(ToySettings)})
    start = time.monotonic()
    created = make_toy(options.directory, settings, Progress(), options.num_processes)
    counts = (len(settings.classes) * count for count in (options.videos_per_class_train, options.videos_per_class_val))
    size = sum(file.stat().st_size for file in options.directory.rglob("*") if file.is_file())
    how = f"made in {time.monotonic() - start:.0f} s" if created else "already there with these settings"
    say("{}: {} train and {} val videos, {:.1f} MB, {}".format(options.directory, *counts, size / 1e6, how))


if __name__ == "__main__":
    run_tool(main)
