"""Count and time published video models with and without TokenLearner, in turns in one run.

    python -m benchmarks.weights --output docs/results/weights/cpu_fp32.json     VideoMAE-B and VideoPrism-B
    python -m benchmarks.weights MCG-NJU/videomae-large                          weights by name

Without names, transformers writes random weights in the published layouts (`pip install -e .[dev]`). Passes are those
of `benchmarks.model`, on a CPU in float32; ratios are printed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.contenders import Contender, Sizes
from benchmarks.model import print_results, run_rounds, summarize
from vidtl.config import ClipConfig, ModelConfig, TokenLearnerConfig
from vidtl.config.checks import require
from vidtl.models import build_model
from vidtl.models.complexity import count_multiply_adds
from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.pretrained import load_pretrained
from vidtl.models.weights.published import read_published
from vidtl.runtime.seeding import seed_torch
from vidtl.runtime.signals import run_tool
from vidtl.runtime.timing import describe_measurement

PLACES = (0, 3, 6)
"""Blocks before TokenLearner."""

CLASSES = {"VideoMAE-B": "VideoMAEForPreTraining", "VideoPrism-B": "VideoPrismVisionModel"}
"""Models of transformers whose default sizes are those of the base model."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="weights, as training.init_from (default: random ones)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every model, after one to warm up")
    parser.add_argument("--batch", type=int, default=1, help="clips per step")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--tokens", type=int, default=8, help="tokens of TokenLearner per timestep")
    parser.add_argument("--output", type=Path, help="JSON file to write, with the seconds of every round")
    options = parser.parse_args()
    require(not options.output or options.output.parent.is_dir(), "--output", str(options.output), "a file in a folder")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    report: dict[str, Any] = describe_measurement("-m benchmarks.weights", ["transformers"]) | {"results": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or CLASSES:
            published = read_published(name if options.names else write_random(name, Path(folder) / name))
            seed_torch(0)
            contenders = variants(name, published, options.tokens)
            models = {each.key: each.model for each in contenders}
            clip = models["none"].clip_config
            sizes = Sizes(batch=options.batch, num_frames=clip.num_frames, frame_size=clip.frame_size[0])
            report["results"][name] = summarize(contenders, run_rounds(models, sizes, options.rounds))
            print_results(console, report["results"][name])
            if options.output:
                options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def write_random(name: str, directory: Path) -> Path:
    """Write the files of a model of transformers, with random weights."""
    import transformers

    kind = getattr(transformers, CLASSES[name])
    kind(kind.config_class()).save_pretrained(directory)
    return directory


def variants(name: str, published: PublishedModel, tokens: int) -> list[Contender]:
    """Build the model as published, and with TokenLearner after each of `PLACES`; all have the same weights."""
    contenders = []
    for place in (None, *PLACES):
        learner = TokenLearnerConfig(num_tokens=0 if place is None else tokens, after_block=place)
        clip = ClipConfig(**published.clip)
        model = build_model(ModelConfig(**published.model, token_learner=learner), clip, 400)
        report = load_pretrained(model, published, new_head=True)
        key, title = "none", name
        if place is not None:
            key, title = f"{tokens}at{place}", f"{tokens} tokens after block {place}"
        title += f", {len(report.loaded)} tensors loaded, {len(report.missing)} fresh"
        cost = count_multiply_adds(model, clip)
        train = 3 * cost - clip.num_frames * 3 * clip.frame_size[0] ** 2 * published.model["width"]  # not of the pixels
        contenders.append(Contender(key=key, title=title, model=model, multiply_adds=cost, train_multiply_adds=train))
    return contenders


if __name__ == "__main__":
    run_tool(main)
