"""Draw where TokenLearner's tokens look over time, for videos of a run's evaluation split.

python tools/visualize.py --checkpoint runs/toy --num_videos 4
"""

import logging
from pathlib import Path

import numpy as np
import torch
from command_line import experiment_parser
from einops import rearrange
from trained_model import parse_with_model, run_folder

from vidtl.data.batch import VideoViews
from vidtl.data.dataset import check_readable
from vidtl.data.description import load_description, read_records
from vidtl.data.loader import EvalLoader
from vidtl.data.pixels import normalise, to_rgb
from vidtl.data.protocols import get_protocol
from vidtl.models.hub import VideoModel, load_model_directory
from vidtl.runtime.launch import run_tool
from vidtl.runtime.logging import configure_logging
from vidtl.visualize.token_maps import clip_token_maps, draw_token_maps, token_map_images

log = logging.getLogger("vidtl.visualize")


def main() -> None:
    parser = experiment_parser("visualize.py", "Draw where TokenLearner's tokens look over time.")
    parser.add_argument("--num_videos", type=int, default=4, help="How many videos, spread evenly over the split")
    parser.add_argument(
        "--output_dir", type=Path, help="Where the PNGs go; default: pictures/ in the folder of the run"
    )
    options, config, directory = parse_with_model(parser)
    configure_logging(is_main_process=True)
    model, _ = load_model_directory(directory)
    records = read_records(load_description(config.data.dataset), config.data.eval_split, Path(config.data.root))
    check_readable(records, config)
    chosen = records.select(np.unique(np.linspace(0, len(records) - 1, options.num_videos).astype(int)))

    folder = options.output_dir or run_folder(directory) / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for video in EvalLoader(chosen, config, get_protocol("center")):
        if video.failure:
            log.warning("unreadable  %s: %s", video.failure.path, video.failure.reason)
            continue
        names = ", ".join(chosen.classes.names[label] for label in chosen.labels(video.index))
        path = folder / f"tokens-{video.index:03d}.png"
        draw(model, video, path, f"{chosen.ids[video.index]}: {names}")
        print(f"picture  {path}")


def draw(model: VideoModel, video: VideoViews, path: Path, title: str) -> None:
    """One video's maps as a grid of tokens over time."""
    rgb_BTCHW = to_rgb(torch.from_numpy(video.pixels[:1]), torch.tensor([video.colour]))
    maps_tShw = clip_token_maps(model, normalise(rgb_BTCHW, model.clip_config))
    frames_THWC = rearrange((rgb_BTCHW[0] * 255).round().byte(), "T C H W -> T H W C").numpy()
    draw_token_maps(token_map_images(maps_tShw, frames_THWC, len(frames_THWC) // len(maps_tShw)), path, title)


if __name__ == "__main__":
    run_tool(main)
