"""Write features of videos: the input of a model's classifier, or its tokens, to search, cluster or train probes on.

python tools/features.py clip.mp4 more_clips/ --checkpoint runs/toy --output features/clips
python tools/features.py clip.mp4 --checkpoint runs/toy --output features/windows --hop "0.5 s"
python tools/features.py --checkpoint runs/toy --data.eval_split train --output features/train      # with labels

Without VIDEO the videos are those of a labeled split. Features are the mean over the views of the protocol. The same
command continues after an interruption, to the same bytes, and tries unreadable videos again (then exit code 4).
"""

from pathlib import Path

from command_line import ModelParser, add_frame_rate

from vidtl.runtime.signals import exit_on_error, run_tool


def features_parser() -> ModelParser:
    parser = ModelParser("features.py [VIDEO...]", "Write features of videos.")
    parser.add_argument("videos", type=str, nargs="*", help="Videos, images, and folders that hold some")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the features")
    text = "Input of the classifier (default), or all tokens before pooling"
    parser.add_argument("--features", choices=("pooled", "tokens"), default="pooled", help=text)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float32", help="Default: float32")
    text = "Features of windows that are as long as the model's clip and so far apart: '8 frames' or '0.5 s'"
    parser.add_argument("--hop", help=text)
    add_frame_rate(parser)
    return parser


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        features_parser().check()

from dataclasses import replace

from predict import end
from trained_model import parse_with_model

from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.video_files import records_of_paths
from vidtl.data.dataset import first_records
from vidtl.data.protocols import protocol_of_run
from vidtl.data.windows import Hop, sliding_windows
from vidtl.evaluation.features import extract
from vidtl.evaluation.provenance import evaluation_key
from vidtl.models import load_model_directory
from vidtl.runtime.files import say
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.progress import Progress


def main() -> None:
    options, config, checkpoint = parse_with_model(features_parser())
    hop, windows = options.hop and Hop.parse(options.hop, "--hop"), None
    accelerator = make_accelerator(config.training.precision)
    configure_logging(accelerator.is_main_process)
    checkpoint.verify()
    model = load_model_directory(checkpoint.model_directory).to(accelerator.device)
    if options.videos:
        paths, is_image_model = [*map(Path, options.videos)], model.clip_config.num_frames == 1
        records, data = records_of_paths(paths, config.data, is_image_model, options.frame_rate)
        config, of_dataset = replace(config, data=data), "center"
    else:
        description, data = load_description(config.data.dataset, config.data.root), config.data
        records = read_records(description, data.eval_split, Path(data.root), data.follow_links)
        records, of_dataset = first_records(records, config.evaluation.max_videos), description.protocol
    if hop:
        windows = sliding_windows(records, config.clip, config.data, hop)
        records = windows.records
    usual = "center" if hop or options.videos else config.evaluation.protocol
    protocol = protocol_of_run(options.settings.get("evaluation.protocol", usual), of_dataset)
    key = evaluation_key(checkpoint, records, config, protocol, accelerator)
    key |= {**key.pop("settings"), "features": options.features, "dtype": options.dtype}
    unreadable = extract(model, records, config, protocol, accelerator, options.output, key, Progress(), windows)
    say(f"features  {options.output}: {len(records)} rows of {checkpoint}, {unreadable} unreadable (see index.csv)")
    end(unreadable, len(records))


if __name__ == "__main__":
    run_tool(main)
