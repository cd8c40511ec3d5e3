"""A training run of a second: a tiny model with dropout, and batches without video.

For tests with several processes: `python tests/training/tiny_run.py OUTPUT_DIR '{"seed": 1, ...}'`.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from vidtl import config as settings
from vidtl.config import ClipConfig, ExperimentConfig, ModelConfig, ScheduleConfig, TokenLearnerConfig
from vidtl.data.augmentation import Augmentation
from vidtl.data.batch import ClipBatch
from vidtl.models import build_model
from vidtl.runtime.launch import make_accelerator
from vidtl.runtime.progress import Progress
from vidtl.runtime.seeding import generator
from vidtl.runtime.signals import run_tool
from vidtl.training.loop import train
from vidtl.training.prefetch import DeviceBatches
from vidtl.training.step import Engine, TrainingTask

NUM_CLASSES = 3
NUM_RECORDS = 22  # with a batch of 8: 3 steps an epoch, the last with 6 real samples


class TinyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(2 * 3 * 2 * 2, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, NUM_CLASSES)

    def forward(self, input_BTCHW):
        hidden = torch.relu(self.norm(self.hidden(input_BTCHW.flatten(1))))
        return self.head(nn.functional.dropout(hidden, 0.3 if DROPOUT else 0.0, self.training))

    def repeated_blocks(self):
        return [self.hidden]


DROPOUT = True


class TinyLoader:
    """Batches as of `vidtl.data.loader.TrainLoader`: the global order is a function of (seed, epoch) only."""

    def __init__(self, config, processes):
        self.training = training = config.training
        self.process_index, self.num_processes = 0, 1
        if processes:
            self.process_index, self.num_processes = processes.process_index, processes.num_processes
        self.micro_batch = training.batch_size // training.accumulation_steps // self.num_processes
        self.steps_per_epoch = -(-NUM_RECORDS // training.batch_size)
        self.samples_per_epoch = NUM_RECORDS
        self.total_steps = config.schedule.total_steps(self.steps_per_epoch, self.samples_per_epoch)
        self.step_delay_s = 0.0
        self.spoil: Callable[[int, ClipBatch], ClipBatch] = lambda step, batch: batch

    def global_count(self, step):
        first = step % self.steps_per_epoch * self.training.batch_size
        return min(self.training.batch_size, NUM_RECORDS - first)

    def clips_of_classes(self, steps):
        return {"swimming": steps}

    def iterate(self, start_step, given_up=None):
        for step in range(start_step, self.total_steps):
            for micro in range(self.training.accumulation_steps):
                time.sleep(self.step_delay_s)
                yield self.spoil(step, self.batch(step, micro))

    def batch(self, step, micro):
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order = generator(self.training.seed, epoch).permutation(NUM_RECORDS)
        part = micro * self.num_processes + self.process_index
        first = step_in_epoch * self.training.batch_size + part * self.micro_batch
        places = range(first, first + self.micro_batch)
        indices = torch.tensor([int(order[place % NUM_RECORDS]) for place in places])
        pixels = [generator(self.training.seed, epoch, int(i), 7).integers(0, 256, (2, 3, 2, 2)) for i in indices]
        targets = nn.functional.one_hot(indices % NUM_CLASSES, NUM_CLASSES).float()
        weights = torch.tensor([float(place < NUM_RECORDS) for place in places])
        color = torch.zeros(len(indices), dtype=torch.int64)
        pixels = torch.stack([torch.from_numpy(p).to(torch.uint8) for p in pixels])
        augmentation = [Augmentation()] * len(indices)
        return ClipBatch(
            pixels=pixels, color=color, targets=targets, weights=weights, augmentation=augmentation, failures=[]
        )


def tiny_config(balance="none", **training):
    """4 epochs of 3 steps; a checkpoint every 2 steps, all kept."""
    defaults = {"batch_size": 8, "checkpoint_every_steps": 2, "keep_checkpoints": 100, "log_every_steps": 2}
    return ExperimentConfig(
        data=settings.DataConfig(max_unreadable_share=0.2, balance=balance),
        optimizer=settings.OptimizerConfig(learning_rate=0.05),
        schedule=ScheduleConfig(length="4 epochs", warmup="1 epoch"),
        training=settings.TrainingConfig(**{**defaults, **training}),
    )


def tiny_task(config, processes=None):
    def save_model(model, directory):
        save_file(model.state_dict(), directory / "model.safetensors")
        (directory / "config.json").write_text("{}")

    return TrainingTask(
        loader=TinyLoader(config, processes),
        make_input=lambda batch: (batch.pixels.float() / 127.5 - 1, batch.targets),
        num_classes=NUM_CLASSES,
        multi_label=False,
        class_counts=torch.tensor([8, 7, 7]),
        save_model=save_model,
    )


def tiny_model():
    torch.manual_seed(3)
    return TinyModel()


def norm_model():
    """Make a model whose running statistics change before the loss is known."""
    return nn.Sequential(tiny_model(), nn.BatchNorm1d(3))


def tiny_train(output_dir, config, accelerator, evaluate=None, task=None, model=None):
    task, model = task or tiny_task(config, accelerator), model or tiny_model()
    summary = train(config, output_dir, accelerator, task, model, evaluate, Progress(visible=False))
    return summary, model


def uneven_evaluation(accelerator):
    """Score an uneven number of batches per process, with the sum in all of them."""

    def evaluate(model):
        torch.rand(3)  # training must not notice
        scores = torch.zeros(())
        with torch.inference_mode():
            for number in range(accelerator.process_index, 5, accelerator.num_processes):
                inputs = torch.from_numpy(generator(8, number).random((4, 2, 3, 2, 2), "float32"))
                scores += model(inputs).softmax(1)[:, 0].sum()
        return {"top1": float(accelerator.reduce(scores)) / 20}

    return evaluate


def tiny_vivit(**model):
    """Two spatial and one temporal block, TokenLearner between the spatial ones; its head does not start at 0."""
    torch.manual_seed(3)
    sizes = {"width": 16, "depth": 2, "num_heads": 2, "temporal_depth": 1, "tubelet": (1, 1, 1)}
    token_learner = TokenLearnerConfig(num_tokens=2, after_block=1)
    vivit = ModelConfig(**{"token_learner": token_learner, **sizes, **model})
    model = build_model(vivit, ClipConfig(num_frames=2, frame_size=(2, 2)), NUM_CLASSES)
    nn.init.normal_(model.head.weight)
    return model


def elastic_vivit():
    return tiny_vivit(token_learner=TokenLearnerConfig(num_tokens=4, after_block=1, elastic=True))


def engine_of(accelerator, model, optimizer="sgd", **training):
    """With SGD: AdamW turns the rounding of gradients that should be 0 (keys' biases) into whole steps."""
    config = tiny_config(**training)
    config = replace(config, optimizer=replace(config.optimizer, name=optimizer))
    return Engine(model, config, accelerator, tiny_task(config, accelerator))


def take_steps(engine, count, start=0):
    batches = DeviceBatches(engine.task.loader.iterate(start), engine.accelerator.device)
    return [engine.step(step, engine.learning_rate(step), batches) for step in range(start, start + count)]


def make_trouble(trouble):
    if trouble == "raise":
        raise ValueError("trouble")
    if trouble in ("pause", "sleep"):
        time.sleep({"pause": 6, "sleep": 1000}[trouble])
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}[trouble])


def spoil_task(task, trouble, at_step):
    """Fail by `kind@place`: at the read of that step's batch (the default), its computation, or a later save."""
    kind, _, trouble_place = trouble.partition("@")
    step_now = 0

    def reach(place, *steps):
        if place == (trouble_place or "read") and at_step in steps:
            make_trouble(kind)

    def spoil(step, batch):
        nonlocal step_now
        step_now = step
        reach("read", step)
        return batch

    def make_input(batch):
        reach("step", step_now)
        return task.make_input(batch)

    def save_model(model, directory):
        task.save_model(model, directory)
        reach("save", *range(step_now + 1))

    task.loader.spoil = spoil
    return replace(task, make_input=make_input, save_model=save_model)


def main():
    output_dir, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    global DROPOUT
    torch.set_num_threads(1)
    expected, delay_s = options.pop("processes"), options.pop("delay_s", 0.0)
    DROPOUT = options.pop("dropout", True)
    evaluates, elastic = options.pop("evaluates", False), options.pop("elastic", False)
    trouble, process, step = options.pop("trouble", ("", -1, -1))
    config = tiny_config(**options)
    accelerator = make_accelerator("fp32")
    assert accelerator.num_processes == expected, f"{accelerator.num_processes} processes instead of {expected}"
    task = tiny_task(config, accelerator)
    task.loader.step_delay_s = delay_s
    evaluate = uneven_evaluation(accelerator) if evaluates else None
    if process == accelerator.process_index:
        task = spoil_task(task, trouble, step)
        if trouble.endswith("@evaluation"):
            evaluate = lambda model: make_trouble(trouble.partition("@")[0]) or {}  # noqa: E731
    (output_dir.parent / f"started-{accelerator.process_index}").touch()
    model = elastic_vivit() if elastic else None
    summary, _ = tiny_train(output_dir, config, accelerator, evaluate, task, model)
    if accelerator.is_main_process:
        form = accelerator.distributed_type.value
        print(json.dumps({"steps": summary.steps, "resumed": summary.resumed_step, "form": form}))


if __name__ == "__main__":
    run_tool(main)
