"""Trainings of the GPU kit (`benchmarks.gpu`), each in a process of its own, as a run of a tool is."""

import itertools
import json
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch._inductor.config
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import Tensor

from vidtl import config as settings
from vidtl.annotations.description import load_description, read_records
from vidtl.annotations.video_files import VideoFile
from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch, batch_input
from vidtl.data.loader import TrainLoader
from vidtl.evaluation.predict import load_clip, predict
from vidtl.models import build_model, load_model_directory, save_model_directory
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator, seed_torch
from vidtl.training import optimizer
from vidtl.training.checkpoint_directory import MODEL, OPTIMIZER, list_checkpoints
from vidtl.training.loop import train
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import TrainingTask
from vidtl.video.encoder import encode_video

Row = dict[str, Any]
"""An item of a section: `item`, `result`, `failed` where it is wrong, and figures."""

STEPS, KILLED_AT, WARM = 12, 6, 4
"""Steps of a training, the one that is killed, and the first whose speed counts; a checkpoint every `WARM` steps."""
TOLERANCE = 0.02
"""Largest relative difference of a loss between two ways to compute the same training in bf16."""
FSDP = {"FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "FSDP_RESHARD_AFTER_FORWARD": "true"}
FSDP |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
FSDP |= {"ACCELERATE_USE_FSDP": "true"}
"""Environment of `accelerate launch --num_processes 1` with configs/accelerate/fsdp_8.yaml."""


@dataclass(frozen=True)
class Kit:
    """Sizes and device of a run of the kit, its temporary folder, and the trainings so far."""

    folder: Path
    small: bool
    device: torch.device
    runs: dict[str, Path] = field(default_factory=dict)

    def videos(self) -> Path:
        """Make a data set of two classes, with videos of the size and length of Kinetics' unless small."""
        root = self.folder / "videos"
        height, width, num_frames, copies = (72, 96, 32, 3) if self.small else (256, 340, 250, 40)
        for number in range(0 if root.exists() else 4):
            folder = root / "train" / f"class {number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            original, cells = folder / f"{number}.mp4", (height // 8, width // 8, 3)
            texture = cv2.resize(generator(0, number).integers(256, size=cells, dtype=np.uint8), (width, height))
            encode_video(original, [np.roll(texture, 2 * frame, axis=number % 2) for frame in range(num_frames)], 25)
            for copy in range(1, copies):
                (folder / f"{number}_{copy}.mp4").hardlink_to(original)
        return root

    def config(self, precision: str = "bf16", **training: Any) -> ExperimentConfig:
        """Return a short training with dropout and TokenLearner."""
        sizes: Row = {"width": 24, "num_heads": 2, "depth": 1} if self.small else {"size": "S", "depth": 12}
        frames, side, batch = (4, 64, 4) if self.small else (16, 224, 16)
        learner = settings.TokenLearnerConfig(num_tokens=8, after_block=sizes["depth"] // 4)
        sizes |= {"temporal_depth": 1, "tubelet": (2, 16, 16), "dropout": 0.1, "stochastic_depth": 0.1}
        training |= {"precision": precision, "batch_size": batch, "log_every_steps": 1, "checkpoint_every_steps": WARM}
        return ExperimentConfig(
            data=settings.DataConfig(
                root=str(self.videos()), num_workers=2 if self.small else min(16, os.cpu_count() or 1)
            ),
            clip=settings.ClipConfig(num_frames=frames, frame_size=(side, side), short_side=side),
            model=settings.ModelConfig(token_learner=learner, **sizes),
            schedule=settings.ScheduleConfig(name="constant", length=f"{STEPS} steps", warmup="0 steps"),
            training=settings.TrainingConfig(**training),
        )

    def train(self, name: str, config: ExperimentConfig, **options: Any) -> Path:
        """Train in a new process, unless a run of this name has finished; return its folder."""
        if name not in self.runs:
            context = multiprocessing.get_context("spawn" if self.device.type == "cuda" else "forkserver")
            context.set_forkserver_preload([__name__])  # on a GPU, nothing may be inherited
            with ProcessPoolExecutor(1, context) as pool:
                pool.submit(run, config, self.folder / name, **options).result()
            self.runs[name] = self.folder / name
        return self.runs[name]


def run(config: ExperimentConfig, folder: Path, killed_at: int = -1, without: str = "", sharded: bool = False) -> None:
    """Train as tools/train.py does; for a process of its own, which SIGKILL ends in step `killed_at`."""
    multiprocessing.set_start_method(None, force=True)  # for decoding workers; that of this process is inherited
    os.environ.update(FSDP if sharded else {})
    if without == "fused optimizer":
        optimizer._FUSED_DEVICES.clear()
    if without == "prefetching":
        DeviceBatches.send_ahead = lambda self: None  # type: ignore[method-assign]
    torch._inductor.config.fallback_random = True  # dropout as without torch.compile
    records = read_records(load_description("", config.data.root), "train", Path(config.data.root))
    accelerator = make_accelerator(config.training.precision)
    assert sharded == (accelerator.distributed_type == DistributedType.FSDP), accelerator.distributed_type
    seed_torch(config.training.seed)
    steps = itertools.count()

    def make_input(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        if next(steps) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch_input(batch, config.clip)

    loader, model = TrainLoader(records, config, 0, 1), build_model(config.model, config.clip, len(records.classes))
    task = TrainingTask(
        loader=loader, make_input=make_input, num_classes=2, multi_label=False, save_model=save_model_directory
    )
    train(config, folder, accelerator, task, model, None, Progress(visible=False))


def lines(folder: Path) -> list[Row]:
    """Read the line of each step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def figures(folder: Path) -> Row:
    """Return speed and share of waiting of the later steps (medians), memory, form and start of a run."""
    later, summary = lines(folder)[WARM:], json.loads((folder / "summary.json").read_text())
    speed, wait = (statistics.median(line[key] for line in later) for key in ("clips_per_s", "data_wait_share"))
    attempt, form = summary["attempts"][-1], summary["hardware"]["distribution"]
    peak = attempt["peak_memory_bytes"]["gpu"]
    row = {"clips/s": round(speed, 2), "data wait": round(wait, 3), "peak GiB": peak and round(peak / 2**30, 2)}
    return row | {"form": form, "from step": attempt["first_step"]}


def same_bits(item: str, folder: Path, reference: Path) -> Row:
    """Compare the last weights and optimizer states of two runs."""
    last, other = (list_checkpoints(each / "checkpoints")[-1] for each in (folder, reference))
    pairs = [(load_file(last / name), load_file(other / name)) for name in (MODEL, OPTIMIZER)]
    wrong = [key for one, two in pairs for key in one.keys() | two.keys() if not torch.equal(one[key], two[key])]
    result = f"{len(wrong)} tensors differ, as {min(wrong)}" if wrong else "bitwise equal"
    return {"item": item, "result": result, "failed": bool(wrong), **figures(folder)}


def same_losses(item: str, folder: Path, reference: Path) -> Row:
    """Compare the losses of two runs."""
    pairs = zip(lines(folder), lines(reference), strict=True)
    difference = max(abs(one["loss"] / other["loss"] - 1) for one, other in pairs)
    result = f"losses differ by at most {difference:.1e}"
    return {"item": item, "result": result, "failed": not difference <= TOLERANCE, **figures(folder)}


def trainings(kit: Kit) -> Iterator[Row]:
    """Kill and resume trainings, train without fused optimizer and without prefetching, and predict."""
    for precision in ("bf16", "fp16"):
        item, config, name = f"{precision}, killed and resumed", kit.config(precision), f"{precision}_resumed"
        if precision == "fp16" and kit.device.type != "cuda":
            yield {"item": item, "result": "not run: fp16 needs a GPU"}
            continue
        whole = kit.train(precision, config)
        with suppress(BrokenProcessPool):
            kit.train(name, config, killed_at=KILLED_AT)
            raise RuntimeError("the run was not killed")
        yield same_bits(item, kit.train(name, config), whole)
    whole = kit.train("bf16", kit.config())
    yield same_losses("unfused optimizer", kit.train("unfused", kit.config(), without="fused optimizer"), whole)
    if kit.device.type == "cuda":
        yield same_bits("without prefetching", kit.train("late", kit.config(), without="prefetching"), whole)
    else:
        yield {"item": "without prefetching", "result": "not run: a CPU has no streams"}
    yield predictions(kit, list_checkpoints(whole / "checkpoints")[-1])


def predictions(kit: Kit, checkpoint: Path) -> Row:
    """Compare the scores of the Python interface on this device with those of the CPU."""
    model, file = load_model_directory(checkpoint), next(kit.videos().rglob("*.mp4"))
    with torch.inference_mode():
        expected_K = model.eval()(load_clip(file, model))[0]
    (found,) = predict(model, [VideoFile(file, "video")])
    difference = float((expected_K - torch.from_numpy(found.scores)).abs().max() / expected_K.abs().max())
    result, failed = f"scores differ by at most {difference:.1e} from the CPU's", not difference <= TOLERANCE
    return {"item": "predict", "result": result, "failed": failed}


def beside_plain(kit: Kit, name: str, config: ExperimentConfig, **options: Any) -> Iterator[Row]:
    """Compare a training with the plain one."""
    plain = kit.train("bf16", kit.config())
    yield {"item": "plain", "result": "reference", **figures(plain)}
    yield same_losses(name, kit.train(name, config, **options), plain)


def data_path(kit: Kit) -> Iterator[Row]:
    """Decode without a model, then into the steps of B/16x2 with 8 tokens."""
    config = kit.config()
    if not kit.small:
        config = replace(
            config,
            clip=settings.ClipConfig(),
            model=replace(config.model, size="B", temporal_depth=4),
            schedule=replace(config.schedule, length="40 steps"),
            training=replace(config.training, batch_size=32, checkpoint_every_steps=1000),
        )
    records = read_records(load_description("", config.data.root), "train", Path(config.data.root))
    batches = TrainLoader(records, config, 0, 1).iterate()
    list(itertools.islice(batches, WARM))
    begin = time.perf_counter()
    clips = sum(len(batch.pixels) for batch in batches)
    speed = round(clips / (time.perf_counter() - begin), 2)
    yield {"item": f"decoding alone, {config.data.num_workers} workers", "result": "done", "clips/s": speed}
    yield {"item": "decoding into steps", "result": "done", **figures(kit.train("data", config))}
