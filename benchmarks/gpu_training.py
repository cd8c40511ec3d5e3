"""Trainings of the GPU kit (`benchmarks.gpu`), each in a process of its own, as a run of a tool would be."""

import itertools
import json
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from safetensors.torch import load_file
from torch import Tensor

from vidtl.annotations.description import load_description, read_records
from vidtl.config import (
    ClipConfig,
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    ScheduleConfig,
    TokenLearnerConfig,
    TrainingConfig,
)
from vidtl.data.batch import ClipBatch, batch_input
from vidtl.data.loader import TrainLoader
from vidtl.data.toy import encode_video
from vidtl.data.toy_clip import Segment, render_clip
from vidtl.models import build_model, save_model_directory
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator, seed_torch
from vidtl.training import optimizer
from vidtl.training.checkpoint_directory import MODEL, OPTIMIZER, list_checkpoints
from vidtl.training.loop import train
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import TrainingTask

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

    @property
    def workers(self) -> int:
        return min(16, os.cpu_count() or 1)

    def videos(self) -> Path:
        """Return a data set of two classes, with the size and length of Kinetics' videos unless small; made once."""
        root = self.folder / "videos"
        height, width, num_frames, copies = (72, 96, 32, 3) if self.small else (256, 340, 250, 40)
        for number in range(0 if root.exists() else 4):
            folder = root / "train" / f"class {number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            motion = [Segment(number, 0, num_frames)]
            original = folder / f"{number}.mp4"
            encode_video(original, render_clip(generator(0, number), height, width, 25, num_frames, motion), 25)
            for copy in range(1, copies):
                (folder / f"{number}_{copy}.mp4").hardlink_to(original)
        return root

    def config(self, precision: str, **training: Any) -> ExperimentConfig:
        """Return a short training with dropout and TokenLearner."""
        sizes: Row = {"width": 24, "num_heads": 2, "depth": 1} if self.small else {"size": "S", "depth": 12}
        frames, side, batch = (4, 64, 4) if self.small else (16, 224, 16)
        learner = TokenLearnerConfig(num_tokens=8, after_block=sizes["depth"] // 4)
        return ExperimentConfig(
            data=DataConfig(root=str(self.videos()), num_workers=2 if self.small else 4),
            clip=ClipConfig(num_frames=frames, frame_size=(side, side), short_side=side),
            model=ModelConfig(
                temporal_depth=1, tubelet=(2, 16, 16), token_learner=learner, dropout=0.1, stochastic_depth=0.1, **sizes
            ),
            schedule=ScheduleConfig(name="constant", length=f"{STEPS} steps", warmup="0 steps"),
            training=TrainingConfig(
                batch_size=batch, precision=precision, log_every_steps=1, checkpoint_every_steps=WARM, **training
            ),
        )  # type: ignore[arg-type]

    def train(self, name: str, config: ExperimentConfig, **options: Any) -> Path:
        """Train in a new process, or return the folder of an earlier run of this name."""
        if name not in self.runs or options.get("killed_at"):
            self.runs[name] = self.folder / name
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(run, config, self.runs[name], **options).result()
        return self.runs[name]


def run(
    config: ExperimentConfig, folder: Path, killed_at: int = -1, without: str = "", environment: Mapping[str, str] = {}
) -> None:
    """Train as tools/train.py does; for a process of its own, which SIGKILL ends in step `killed_at`."""
    multiprocessing.set_start_method(None, force=True)  # for decoding workers; that of this process is inherited
    os.environ.update(environment)
    if without == "fused optimizer":
        optimizer._FUSED_DEVICES.clear()
    if without == "prefetching":
        DeviceBatches.send_ahead = lambda self: None  # type: ignore[method-assign]
    torch._inductor.config.fallback_random = True  # dropout as without torch.compile
    torch.set_num_threads(1)
    records = read_records(load_description("", config.data.root), "train", Path(config.data.root))
    accelerator = make_accelerator(config.training.precision)
    seed_torch(config.training.seed)
    steps = itertools.count()

    def make_input(batch: ClipBatch) -> tuple[Tensor, Tensor]:
        if next(steps) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch_input(batch, config.clip)

    task = TrainingTask(
        loader=TrainLoader(records, config, accelerator.process_index, accelerator.num_processes),
        make_input=make_input,
        num_classes=len(records.classes),
        multi_label=False,
        save_model=save_model_directory,
    )
    model = build_model(config.model, config.clip, len(records.classes))
    train(config, folder, accelerator, task, model, None, Progress(visible=False))


def lines(folder: Path) -> list[Row]:
    """Read the line of each step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def speed(folder: Path) -> Row:
    """Return the median speed of the later steps, and the share of the time that the host waited for data."""
    later = lines(folder)[WARM:]
    median = {name: statistics.median(line[name] for line in later) for name in ("clips_per_s", "data_wait_share")}
    return {"clips/s": round(median["clips_per_s"], 2), "data wait": round(median["data_wait_share"], 3)}


def same_bits(item: str, folder: Path, reference: Path) -> Row:
    """Compare the last weights and optimizer states of two runs."""
    last, other = (list_checkpoints(each / "checkpoints")[-1] for each in (folder, reference))
    pairs = [(load_file(last / name), load_file(other / name)) for name in (MODEL, OPTIMIZER)]
    wrong = [key for one, two in pairs for key in one.keys() | two.keys() if not torch.equal(one[key], two[key])]
    result = f"{len(wrong)} tensors differ, as {min(wrong)}" if wrong else "bitwise equal"
    return {"item": item, "result": result, "failed": bool(wrong), **speed(folder)}


def same_losses(item: str, folder: Path, reference: Path) -> Row:
    """Compare the losses of two runs."""
    pairs = zip(lines(folder), lines(reference), strict=True)
    difference = max(abs(one["loss"] / other["loss"] - 1) for one, other in pairs)
    result = f"losses differ by {difference:.1e} at most"
    return {"item": item, "result": result, "failed": not difference <= TOLERANCE, **speed(folder)}


def resumed(kit: Kit) -> Iterator[Row]:
    """Kill and resume trainings, and train without the fused optimizer and without prefetching."""
    for precision in ("bf16", "fp16"):
        item = f"{precision}, killed and resumed"
        if precision == "fp16" and kit.device.type != "cuda":
            yield {"item": item, "result": "not run: fp16 needs a GPU"}
            continue
        config, name = kit.config(precision), f"{precision}_resumed"
        whole = kit.train(precision, config)
        try:
            kit.train(name, config, killed_at=KILLED_AT)
        except BrokenProcessPool:
            del kit.runs[name]
        yield same_bits(item, kit.train(name, config), whole)
    whole = kit.train("bf16", kit.config("bf16"))
    yield same_losses(
        "without fused optimizer", kit.train("unfused", kit.config("bf16"), without="fused optimizer"), whole
    )
    if kit.device.type == "cuda":
        ahead = kit.train("no_prefetch", kit.config("bf16"), without="prefetching")
        yield same_bits("without side-stream prefetching", ahead, whole)
    else:
        yield {"item": "without side-stream prefetching", "result": "not run: a CPU has no streams"}


def sharded(kit: Kit) -> Iterator[Row]:
    """Train with FSDP2 in one process."""
    whole = kit.train("bf16", kit.config("bf16"))
    yield {"item": "plain", "result": "reference", **speed(whole)}
    yield same_losses("FSDP2", kit.train("fsdp", kit.config("bf16"), environment=FSDP), whole)


def compiled(kit: Kit) -> Iterator[Row]:
    """Train with compiled blocks."""
    whole = kit.train("bf16", kit.config("bf16"))
    yield {"item": "eager", "result": "reference", **speed(whole)}
    yield same_losses("compiled blocks", kit.train("compiled", kit.config("bf16", compile="blocks")), whole)


def data_path(kit: Kit) -> Iterator[Row]:
    """Decode without a model, then into the steps of B/16x2 with 8 tokens."""
    config = kit.config("bf16")
    if not kit.small:
        learner = TokenLearnerConfig(num_tokens=8, after_block=3)
        config = replace(
            config,
            clip=ClipConfig(),
            model=ModelConfig(size="B", temporal_depth=4, tubelet=(2, 16, 16), token_learner=learner),
            schedule=replace(config.schedule, length="40 steps"),
            training=replace(config.training, batch_size=32, checkpoint_every_steps=1000),
        )
    config = replace(config, data=replace(config.data, num_workers=kit.workers))
    records = read_records(load_description("", config.data.root), "train", Path(config.data.root))
    loader = TrainLoader(records, config, 0, 1)
    clips, begin = 0, 0.0
    for step, batch in enumerate(loader.iterate()):
        clips += len(batch.pixels) if step >= WARM else 0
        begin = time.perf_counter() if step == WARM - 1 else begin
    decoded = clips / (time.perf_counter() - begin)
    yield {"item": f"decoding alone, {kit.workers} workers", "result": "done", "clips/s": round(decoded, 2)}
    yield {"item": "decoding into steps", "result": "done", **speed(kit.train("data", config))}
