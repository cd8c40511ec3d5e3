"""Experiments with several processes, and with the data path: elastic runs, forms of a model, deaths, workers."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.environment import ENVIRONMENT, REPOSITORY
from tests.stress.outcome import Bench, Outcome, are_equal, cut_back, newest, tensors_of
from tests.training import tiny_run
from vidtl.data.toy import ToySettings, make_toy
from vidtl.runtime.progress import Progress

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file"]


def launch(
    folder: Path, processes: int, config: str = "cpu_2_processes", **options
) -> subprocess.CompletedProcess[str]:
    """A tiny run through `accelerate launch`, which asserts the number of its processes itself."""
    options = {"processes": processes, "batch_size": 12, "dropout": False, "log_every_steps": 1, **options}
    if processes == 1:
        command = [sys.executable]
    else:
        file = REPOSITORY / f"configs/accelerate/{config}.yaml"
        command = [*LAUNCH, str(file), "--num_processes", str(processes)]
    command += [str(Path(tiny_run.__file__)), str(folder), json.dumps(options)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_losses(one: Path, other: Path) -> bool:
    a, b = ([line["loss"] for line in lines(run) if "split" not in line] for run in (one, other))
    return len(a) == len(b) and all(abs(x - y) <= 1e-5 * abs(y) for x, y in zip(a, b, strict=True))


def same_rates(one: Path, other: Path) -> bool:
    a, b = ([line["learning_rate"] for line in lines(run) if "split" not in line] for run in (one, other))
    return a == b


def elastic(bench: Bench) -> Outcome:
    """1, 2, 3 and 1 processes within one run, with 1 and 4 accumulation steps: the losses of the unbroken run."""
    outcome = Outcome()
    reference = bench.folder / "reference"
    outcome.judge("reference", launch(reference, 1).returncode == 0)
    for accumulation in (1, 4):
        run = bench.folder / f"elastic-{accumulation}"
        steps = sorted(int(path.name[5:]) for path in (reference / "checkpoints").iterdir())
        for processes, part in ((1, 0.25), (2, 0.5), (3, 0.75), (1, 1.0)):
            done = launch(
                run, processes, accumulation_steps=accumulation if 12 % (processes * accumulation) == 0 else 2
            )
            outcome.judge(f"{processes} processes, {accumulation} accumulation steps", done.returncode == 0)
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
        done = launch(bench.folder / name, processes, config, ema_decay=0.9, **options)
        outcome.judge(f"{name} runs", done.returncode == 0)
        names = {key.split(":")[1] for key in tensors_of(newest(bench.folder / name))}
        odd = [key for key in names if key.startswith("module.") or "_orig_mod" in key or "_fsdp" in key]
        outcome.judge(f"{name} writes plain names", not odd)
    for source in FORMS:
        for target, (processes, config, options) in FORMS.items():
            if source != target:
                run = cut_back(bench.folder / source, bench.folder / f"{source} to {target}", 4)
                done = launch(run, processes, config, ema_decay=0.9, **options)
                is_right = done.returncode == 0 and same_losses(run, bench.folder / "plain")
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
                done = launch(folder, 2, evaluates=True, trouble=(f"{trouble}@{place}", process, 4))
                slowest = max(slowest, time.monotonic() - start)
                outcome.judge(f"{trouble} in a {place}", done.returncode != 0 and done.stderr.count(told) >= 1)
                outcome.judge(
                    f"going on after {trouble} in a {place}", launch(folder, 2, evaluates=True).returncode == 0
                )
    outcome.figures = {"slowest run from start to end, s": slowest}
    return outcome


def resume_grid(bench: Bench) -> Outcome:
    """Real videos, augmentation, MixUp, dropout: first, middle and last step of each epoch, 0 to 4 workers."""
    toy = bench.folder / "toy"
    make_toy(
        toy,
        ToySettings(seed=3, videos_per_class_train=3, videos_per_class_val=1),
        Progress(visible=False),
        num_processes=1,
    )
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
    options = ["--config", REPOSITORY / "configs/toy.yaml", "--data.root", toy, "--output_dir", folder]
    options += [
        "--clip.num_frames",
        "8",
        "--clip.stride",
        "2",
        "--clip.frame_size",
        "[32,32]",
        "--clip.short_side",
        "36",
    ]
    options += ["--model.width", "24", "--model.depth", "2", "--model.temporal_depth", "1"]
    options += ["--model.dropout", "0.1", "--model.stochastic_depth", "0.2", "--training.batch_size", "8"]
    options += ["--augmentation.crop", "random_resized", "--augmentation.mixup_alpha", "0.8"]
    options += ["--schedule.length", "3 epochs", "--schedule.warmup", "1 epoch", "--training.ema_decay", "0.9"]
    options += ["--training.checkpoint_every_steps", "1", "--training.keep_checkpoints", "100"]
    options += ["--training.evaluate_every_epochs", "0", "--data.num_workers", workers]
    options += ["--training.accumulation_steps", accumulation, "--training.trackers", "[]"]
    command = [sys.executable, REPOSITORY / "tools/train.py", *options]
    return subprocess.run([str(part) for part in command], env=ENVIRONMENT, capture_output=True, timeout=300).returncode
