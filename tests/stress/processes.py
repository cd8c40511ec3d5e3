"""Experiments with several processes, and with the data path: elastic runs, forms of a model, deaths, workers."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.environment import ENVIRONMENT, REPOSITORY, launch_command
from tests.stress.outcome import Bench, Outcome, newest
from tests.training.runs import are_equal, cut_back, losses, start, tensors_of


def launch(folder: Path, processes: int, config: str = "cpu_2_processes", **options) -> tuple[int, str]:
    """Start a tiny run, which asserts its number of processes; return exit code and messages."""
    options = {"processes": processes, "batch_size": 12, "dropout": False, "log_every_steps": 1, **options}
    launcher = launch_command(config, "--num_processes", str(processes)) if processes > 1 else [sys.executable]
    process = start(launcher, folder, **options)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def same_losses(one: Path, other: Path) -> bool:
    a, b = losses(one), losses(other)
    return len(a) == len(b) and all(abs(x - y) <= 1e-5 * abs(y) for x, y in zip(a, b, strict=True))


FORMS = {
    "plain": (1, "cpu", {}),
    "compiled": (1, "cpu", {"compile": "model"}),
    "DDP": (2, "cpu_2_processes", {}),
    "FSDP2": (2, "fsdp_cpu_2_processes", {}),
}


def forms(bench: Bench) -> Outcome:
    """Checkpoints of plain, compiled, DDP and FSDP2 models resume in each other form, with plain names."""
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
    """One of two processes raises or is killed in a read, a step, a save, an evaluation: the other ends too, the cause
    is reported, and the run resumes."""
    outcome, rng, slowest = Outcome(), random.Random(bench.seed), 0.0
    causes = {"raise": "ValueError: trouble", "kill": "SIGKILL"}
    for number in range(max(1, round(bench.scale))):
        for place in ("read", "step", "save", "evaluation"):
            for trouble, cause in causes.items():
                folder = bench.folder / f"{place}-{trouble}-{number}"
                process = 0 if place == "save" else rng.randrange(2)
                start = time.monotonic()
                code, errors = launch(folder, 2, evaluates=True, trouble=(f"{trouble}@{place}", process, 4))
                slowest = max(slowest, time.monotonic() - start)
                outcome.judge(f"{trouble} in a {place}", code != 0 and cause in errors)
                outcome.judge(f"resuming after {trouble} in a {place}", launch(folder, 2, evaluates=True)[0] == 0)
    outcome.figures = {"slowest run from start to end, s": slowest}
    return outcome


def resume_grid(bench: Bench) -> Outcome:
    """Encoded videos with augmentation, MixUp and dropout: resumed bitwise at the first, a middle and the last step of
    epochs with 0, 1, 2 and 4 workers."""
    toy = bench.folder / "toy"
    options = ["--seed", "3", "--videos_per_class_train", "3", "--videos_per_class_val", "1"]
    subprocess.run([sys.executable, REPOSITORY / "tools/make_toy.py", toy, *options], check=True, capture_output=True)
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
