"""Experiments with one process: kills, signals and long runs."""

import gc
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tests.stress.outcome import Bench, KillInSave, Outcome, ending_of, in_child, newest
from tests.training.runs import are_equal
from tests.training.tiny_run import tiny_config, tiny_task, tiny_train, uneven_evaluation
from vidtl.config import ScheduleConfig
from vidtl.runtime.signals import StoppedBySignalError
from vidtl.training.checkpoint_directory import checkpoint_step, find_problem, list_checkpoints

OPTIONS = {"keep_checkpoints": 2, "checkpoint_every_steps": 1, "ema_decay": 0.9, "trackers": ()}


def config_of(length, **training):
    schedule = ScheduleConfig(length=length, warmup="1 epoch")
    return replace(tiny_config(**{**OPTIONS, **training}), schedule=schedule)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def kills(bench: Bench) -> Outcome:
    """SIGKILL at random times, two of five inside a save: a valid checkpoint is always left, the disk holds no extra
    files, and weights, average and optimizer end bitwise equal."""
    outcome, rng = Outcome(), random.Random(bench.seed)
    wanted, in_saves, attempt = bench.scaled(100), 0, 0
    config = config_of("20 epochs")
    evaluate = uneven_evaluation(bench.accelerator)
    unbroken, _ = tiny_train(bench.folder / "unbroken", config, bench.accelerator, evaluate)
    one = folder_bytes(unbroken.checkpoint)
    run = 0
    while outcome.cases < wanted:
        run += 1
        folder = bench.folder / f"run-{run}"
        while True:
            attempt += 1
            in_save, operation = attempt % 5 < 2, rng.randrange(1, 120)

            def work(folder=folder, in_save=in_save, operation=operation):
                if in_save:
                    KillInSave(operation)
                tiny_train(folder, config, bench.accelerator, evaluate)

            child = in_child(work)
            if not in_save:
                time.sleep(rng.uniform(0.05, 0.6))
                os.kill(child, signal.SIGKILL)
            if ending_of(child) != -signal.SIGKILL:
                break
            in_saves += in_save
            found = list_checkpoints(folder / "checkpoints")
            whole = [path for path in found if find_problem(path) is None]
            # the newest two, the best, and one half written
            fits = folder_bytes(folder / "checkpoints") <= (config.training.keep_checkpoints + 2) * one * 1.01
            outcome.judge(f"run {run}, kill {outcome.cases + 1}", (not found or bool(whole)) and fits)
        is_clean = not list((folder / "checkpoints").glob("*.tmp"))
        if not (are_equal(newest(folder), unbroken.checkpoint) and is_clean):
            outcome.failures.append(f"the end of run {run}")
        shutil.rmtree(folder)
    outcome.figures = {"runs": run, "kills inside a save": in_saves}
    return outcome


def signals(bench: Bench) -> Outcome:
    """SIGTERM, SIGINT and SIGUSR1 in random steps: a checkpoint of that step, the exit code, a bitwise equal end."""
    outcome, rng = Outcome(), random.Random(bench.seed)
    config = config_of("8 epochs", checkpoint_every_steps=1000)
    unbroken, _ = tiny_train(bench.folder / "unbroken", config, bench.accelerator)
    slowest = 0.0
    for number in range(bench.scaled(20)):
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            step, folder = rng.randrange(1, 23), bench.folder / f"{signum.name}-{number}"

            def work(folder=folder, step=step, signum=signum):
                task = tiny_task(config)
                task.loader.spoil = lambda at, batch: (os.kill(os.getpid(), signum) if at == step else None) or batch
                try:
                    tiny_train(folder, config, bench.accelerator, task=task)
                except StoppedBySignalError as stopped:
                    raise SystemExit(128 + stopped.signum) from None

            start = time.monotonic()
            code = ending_of(in_child(work))
            slowest = max(slowest, time.monotonic() - start)
            kept = checkpoint_step(newest(folder)) == step + 1
            again, _ = tiny_train(folder, config, bench.accelerator)
            same = are_equal(again.checkpoint, unbroken.checkpoint)
            outcome.judge(f"{signum.name} in step {step}", code == 128 + signum and kept and same)
            shutil.rmtree(folder)
    outcome.figures = {"slowest end, s": slowest}
    return outcome


def soak(bench: Bench) -> Outcome:
    """A long run with evaluations and three kills: no growth of memory (<= 1 MiB per 1,000 steps), files or threads."""
    outcome = Outcome()
    steps = max(1500, 3 * bench.scaled(1000))  # fewer say nothing of a slope
    options = {"evaluate_every_epochs": 100 / 3, "checkpoint_every_steps": 100, "trackers": ("tensorboard",)}
    config = config_of(f"{steps} steps", **options)
    folder, samples = bench.folder / "run", bench.folder / "samples.txt"
    evaluate = uneven_evaluation(bench.accelerator)

    def work(kill_at):
        task = tiny_task(config)

        def sample(step, batch):
            if step % 20 == 0:
                gc.collect()
                fields = Path("/proc/self/statm").read_text().split()
                numbers = (step, int(fields[1]) * 4096, len(os.listdir("/proc/self/fd")), threading.active_count())
                with samples.open("a") as stream:
                    print(*numbers, file=stream)
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return batch

        task.loader.spoil = sample
        tiny_train(folder, config, bench.accelerator, evaluate, task=task)

    for kill_at in (steps // 5, steps * 2 // 5, steps // 2):
        outcome.judge(f"kill at {kill_at}", ending_of(in_child(partial(work, kill_at))) == -signal.SIGKILL)
    samples.unlink()
    outcome.judge("the end", ending_of(in_child(lambda: work(-1))) == 0)
    table = np.loadtxt(samples)
    settled = table[len(table) // 4 :]
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 1000 / 2**20
    outcome.judge(f"memory grows by {slope:.2f} MiB per 1,000 steps", slope <= 1.0)
    for column, name in ((2, "open files"), (3, "threads")):
        first, last = settled[0, column], settled[-1, column]
        outcome.judge(f"{name}: {first} to {last}", last <= first)
    outcome.figures = {"steps": steps, "MiB per 1,000 steps": float(slope)}
    return outcome
