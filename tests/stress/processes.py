"""Experiments with several processes, and with the data path: elastic runs, forms of a model, deaths, workers."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.stress.outcome import Bench, Outcome, newest
from tests.training.runs import are_equal, cut_back, launch_command, log_lines, losses, saved_steps, start, tensors_of
from vidtl.data.toy import ToySettings, make_toy
from vidtl.runtime.progress import Progress


def launch(folder: Path, processes: int, config: str = "cpu_2_processes", **options) -> tuple[int, str]:
    """A tiny run, which asserts the number of its processes itself; its exit code and messages."""
    options = {"processes": processes, "batch_size": 12, "dropout": False, "log_every_steps": 1, **options}
    launcher = launch_command(config, "--num_processes", str(processes)) if processes > 1 else [sys.executable]
    process = start(launcher, folder, **options)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def same_losses(one: Path, other: Path) -> bool:
    a, b = losses(one), losses(other)
    return len(a) == len(b) and all(abs(x - y) <= 1e-5 * abs(y) for x, y in zip(a, b, strict=True))


def same_rates(one: Path, other: Path) -> bool:
    a, b = ([line["learning_rate"] for line in log_lines(run) if "split" not in line] for run in (one, other))
    return a == b


def elastic(bench: Bench) -> Outcome:
    """1, 2, 3 and 1 processes within one run, with 1 and 4 accumulation steps: the losses of the unbroken run."""
    outcome = Outcome()
    reference = bench.folder / "reference"
    outcome.judge("reference", launch(reference, 1)[0] == 0)
    for accumulation in (1, 4):
        run = bench.folder / f"elastic-{accumulation}"
        steps = saved_steps(reference)
        for processes, part in ((1, 0.25), (2, 0.5), (3, 0.75), (1, 1.0)):
            code, _ = launch(
                run, processes, accumulation_steps=accumulation if 12 % (processes * accumulation) == 0 else 2
            )
            outcome.judge(f"{processes} processes, {accumulation} accumulation steps", code == 0)
            outcome.judge(f"losses with {processes} x {accumulation}", same_losses(run, reference))
            outcome.judge(f"learning rates with {processes} x {accumulation}", same_rates(run, reference))
            if part < 1:
                kept = [step for step in steps if step <= part * steps[-1]][-1]
                run = cut_back(run, bench.folder / f"elastic-{accumulation}-{kept}", kept)
    return outcome


FORMS = {
    "plain": (1, "cpu", {}),
    "compiled": (1, "cpu", {"compile": "model"}),
    "DDP": (2, "cpu_2_processes", {}),
    "FSDP2": (2, "fsdp_cpu_2_processes", {}),
}


def forms(bench: Bench) -> Outcome:
    """A checkpoint of each form of a model goes on in every other form, with plain names and the same losses."""
    outcome = Outcome()
    for name, (processes, config, options) in FORMS.items():
        code, _ = launch(bench.folder / name, processes, config, ema_decay=0.9, **options)
        outcome.judge(f"{name} runs", code == 0)
        names = {key.split(":")[1] for key in tensors_of(newest(bench.folder / name))}
        odd = [key for key in names if key.startswith("module.") or "_orig_mod" in key or "_fsdp" in key]
        outcome.judge(f"{name} writes plain names", not odd)
    for source in FORMS:
        for target, (processes, config, options) in FORMS.items():
            if source != target:
                run = cut_back(bench.folder / source, bench.folder / f"{source} to {target}", 4)
                code, _ = launch(run, processes, config, ema_decay=0.9, **options)
                is_right = code == 0 and same_losses(run, bench.folder / "plain")
                outcome.judge(f"{source} to {target}", is_right)
                shutil.rmtree(run)
    return outcome


def deaths(bench: Bench) -> Outcome:
    """One of two processes raises, or is killed, in a step, a save, an evaluation, a read: both end, the cause told."""
    outcome, rng, slowest = Outcome(), random.Random(bench.seed), 0.0
    causes = {"raise": "ValueError: trouble", "kill": "SIGKILL"}
    for number in range(max(1, round(bench.scale))):
        for place in ("read", "step", "save", "evaluation"):
            for trouble, told in causes.items():
                folder = bench.folder / f"{place}-{trouble}-{number}"
                process = 0 if place == "save" else rng.randrange(2)
                start = time.monotonic()
                code, errors = launch(folder, 2, evaluates=True, trouble=(f"{trouble}@{place}", process, 4))
                slowest = max(slowest, time.monotonic() - start)
                outcome.judge(f"{trouble} in a {place}", code != 0 and told in errors)
                outcome.judge(f"going on after {trouble} in a {place}", launch(folder, 2, evaluates=True)[0] == 0)
    outcome.figures = {"slowest run from start to end, s": slowest}
    return outcome


def resume_grid(bench: Bench) -> Outcome:
    """Real videos, augmentation, MixUp, dropout: first, middle and last step of each epoch, 0 to 4 workers."""
    toy = bench.folder / "toy"
    settings = ToySettings(seed=3, videos_per_class_train=3, videos_per_class_val=1)
    make_toy(toy, settings, Progress(visible=False), num_processes=1)
    outcome = Outcome()
    steps = (1, 3, 6, 7, 9, 12, 13, 15) if bench.scale >= 1 else (1, 6, 9)
    for accumulation in (1, 4) if bench.scale >= 1 else (1,):
        reference = bench.folder / f"reference-{accumulation}"
        assert train_toy(toy, reference, 2, accumulation) == 0
        for number, step in enumerate(steps):
            workers = (0, 1, 2, 4)[number % 4]
            run = cut_back(reference, bench.folder / "resumed", step)
            code = train_toy(toy, run, workers, accumulation)
            is_right = code == 0 and are_equal(newest(run), newest(reference))
            outcome.judge(f"step {step}, {workers} workers, {accumulation} accumulation steps", is_right)
            shutil.rmtree(run)
    return outcome


def train_toy(toy: Path, folder: Path, workers: int, accumulation: int) -> int:
    """`tools/train.py`; its exit code."""
    options = f"""
        --config {REPOSITORY}/configs/toy.yaml --data.root {toy} --output_dir {folder} --data.num_workers {workers}
        --clip.num_frames 8 --clip.stride 2 --clip.frame_size [32,32] --clip.short_side 36
        --model.width 24 --model.depth 2 --model.temporal_depth 1
        --model.dropout 0.1 --model.stochastic_depth 0.2
        --augmentation.crop random_resized --augmentation.mixup_alpha 0.8
        --schedule.length 3epochs --schedule.warmup 1epoch --training.batch_size 8 --training.ema_decay 0.9
        --training.checkpoint_every_steps 1 --training.keep_checkpoints 100 --training.evaluate_every_epochs 0
        --training.accumulation_steps {accumulation} --training.trackers []""".split()
    command = [sys.executable, str(REPOSITORY / "tools/train.py"), *options]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=300).returncode
