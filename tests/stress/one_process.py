"""Experiments with one process: kills, signals, damaged files, long runs, and what a checkpoint costs."""

import gc
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.stress.outcome import Bench, KillInSave, Outcome, ending_of, in_child, newest
from tests.training.runs import are_equal, cut_back
from tests.training.tiny_run import tiny_config, tiny_model, tiny_task, tiny_train, uneven_evaluation
from vidtl.config import ScheduleConfig
from vidtl.errors import UserError
from vidtl.runtime.signals import SAME_REQUEST_S, StoppedBySignalError
from vidtl.training.checkpoint import checkpoint_step, find_problem, list_checkpoints, new_checkpoint
from vidtl.training.step import Engine

OPTIONS = {"keep_checkpoints": 2, "checkpoint_every_steps": 1, "ema_decay": 0.9, "trackers": ()}


def config_of(length, **training):
    config = tiny_config(**{**OPTIONS, **training})
    object.__setattr__(config, "schedule", ScheduleConfig(length=length, warmup="1 epoch"))
    return config


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def kills(bench: Bench) -> Outcome:
    """SIGKILL at random times, two of five inside a save: the end is bitwise that of the unbroken run."""
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
    """SIGTERM, SIGINT and SIGUSR1 in random steps: a checkpoint of that step, and bitwise from there."""
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
    start = time.monotonic()
    outcome.judge("second signal", second_signal_ends(bench.folder / "second", config_of("8 epochs"), bench))
    outcome.figures = {"slowest end, s": slowest, "second signal, s": time.monotonic() - start - SAME_REQUEST_S - 0.1}
    return outcome


def second_signal_ends(folder, config, bench):
    def work():
        task = tiny_task(config)
        task.loader.spoil = lambda at, batch: (time.sleep(60) if at == 3 else None) or batch

        def send():
            time.sleep(1.0)  # until the step that hangs
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SAME_REQUEST_S + 0.1)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=send, daemon=True).start()
        tiny_train(folder, config, bench.accelerator, task=task)

    return ending_of(in_child(work)) == 128 + signal.SIGTERM


def damage(bench: Bench) -> Outcome:
    """Flipped bytes, cut files and missing files: each is found, by file name, and the checkpoint before is taken."""
    outcome, rng = Outcome(), np.random.default_rng(bench.seed)
    config = config_of("2 epochs")
    tiny_train(bench.folder / "run", config, bench.accelerator)
    last, before = list_checkpoints(bench.folder / "run/checkpoints")
    files = sorted(path for path in last.rglob("*") if path.is_file())

    def check(name, path, content):
        good = path.read_bytes()
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        problem = find_problem(last, last.name) or ""
        found = path.relative_to(last).as_posix() in problem and newest(bench.folder / "run") == before
        outcome.judge(f"{name} of {path.name}", found)
        path.write_bytes(good)

    for number in range(bench.scaled(200)):
        path = files[number % len(files)]
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(7, dtype=np.int64)
        if bytes(content).split() != path.read_bytes().split():  # white space of the manifest says nothing
            check("flip", path, bytes(content))
    for number in range(bench.scaled(50)):
        path = files[number % len(files)]
        check("cut", path, path.read_bytes()[: rng.integers(path.stat().st_size)])
    for path in files:
        check("deletion", path, None)
    return outcome


def directory_troubles(bench: Bench) -> Outcome:
    """The output directory cannot be written, vanishes, or the clock jumps: one line, or no difference."""
    outcome = Outcome()
    blocked = bench.folder / "file"
    blocked.write_text("")
    for name, folder in (("a file in its place", blocked), ("below a file", blocked / "run")):
        try:
            tiny_train(folder, config_of("1 epoch"), bench.accelerator)
            told = False
        except UserError as error:
            told = "\n" not in str(error) and str(folder) in str(error)
        except OSError:
            told = False
        outcome.judge(name, told)
    task, folder = tiny_task(config_of("4 epochs")), bench.folder / "vanishing"
    task.loader.spoil = lambda step, batch: (shutil.rmtree(folder) if step == 5 else None) or batch
    try:
        tiny_train(folder, config_of("4 epochs", checkpoint_every_steps=4), bench.accelerator, task=task)
        outcome.judge("removed during the run", list_checkpoints(folder / "checkpoints") != [])
    except UserError as error:
        outcome.judge("removed during the run", "\n" not in str(error))
    real = time.time
    try:
        jumps = iter(range(10**9))
        time.time = lambda: real() + (-1) ** next(jumps) * 1e6
        jumped, _ = tiny_train(bench.folder / "jumped", config_of("4 epochs"), bench.accelerator)
    finally:
        time.time = real
    straight, _ = tiny_train(bench.folder / "straight", config_of("4 epochs"), bench.accelerator)
    outcome.judge("a clock that jumps", are_equal(jumped.checkpoint, straight.checkpoint))
    return outcome


def soak(bench: Bench) -> Outcome:
    """3,000 steps with evaluations and three kills: no growth of memory, files or threads."""
    outcome = Outcome()
    steps = max(1500, 3 * bench.scaled(1000))  # fewer say nothing of a slope
    config = config_of(
        f"{steps} steps", evaluate_every_epochs=100 / 3, checkpoint_every_steps=100, trackers=("tensorboard",)
    )
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
        outcome.judge(
            f"kill at {kill_at}", ending_of(in_child(lambda kill_at=kill_at: work(kill_at))) == -signal.SIGKILL
        )
    samples.unlink()
    outcome.judge("the end", ending_of(in_child(lambda: work(-1))) == 0)
    table = np.loadtxt(samples)
    settled = table[len(table) // 4 :]
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 1000 / 2**20
    outcome.judge(f"memory grows by {slope:.2f} MiB per 1,000 steps", slope <= 1.0)
    for column, name in ((2, "open files"), (3, "threads")):
        outcome.judge(
            f"{name}: {settled[0, column]} to {settled[-1, column]}", settled[-1, column] <= settled[0, column]
        )
    outcome.figures = {"steps": steps, "MiB per 1,000 steps": float(slope)}
    return outcome


def cost(bench: Bench) -> Outcome:
    """A checkpoint against a raw write and fsync of the same bytes; the first step after resuming late or early."""
    outcome = Outcome()
    config = config_of("4 epochs", ema_decay=0.0)
    model = torch.nn.Sequential(tiny_model(), *(torch.nn.Linear(2048, 2048) for _ in range(4)))
    model.forward = model[0].forward  # the other weights are there to be written
    engine = Engine(model, config, bench.accelerator, tiny_task(config))
    for parameter in model.parameters():
        engine.optimizer.state[parameter] = {
            "step": torch.tensor(1.0), "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)
        }  # fmt: skip
    raw_s, ours_s = [], []
    for number in range(max(5, bench.scaled(20))):
        snapshot = engine.snapshot()
        content = os.urandom(snapshot.num_bytes)
        start = time.perf_counter()
        with (bench.folder / "raw").open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        raw_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        with new_checkpoint(bench.folder / "checkpoints", number, snapshot.num_bytes) as directory:
            save_file(snapshot.weights, directory / "model.safetensors")
            snapshot.save_optimizer(directory)
        ours_s.append(time.perf_counter() - start)
        shutil.rmtree(bench.folder / "checkpoints")
    ratio = float(np.median(ours_s) / np.median(raw_s))
    outcome.judge(f"a checkpoint takes {ratio:.2f} times a raw write", ratio <= 1.3)
    outcome.figures = {"bytes": snapshot.num_bytes, "raw write, s": float(np.median(raw_s)),
                       "checkpoint, s": float(np.median(ours_s)), "ratio": ratio}  # fmt: skip
    outcome.figures |= resuming(bench, outcome)
    return outcome


def resuming(bench: Bench, outcome: Outcome) -> dict[str, float]:
    config = config_of("100 epochs", keep_checkpoints=1000, checkpoint_every_steps=1)
    tiny_train(bench.folder / "long", config, bench.accelerator)
    seconds = {}
    for step in (1, 150, 299):
        folder = cut_back(bench.folder / "long", bench.folder / f"from-{step}", step)
        task, first = tiny_task(config), []
        task.loader.spoil = lambda at, batch, first=first: first.append(time.perf_counter()) or batch
        start = time.perf_counter()
        tiny_train(folder, config, bench.accelerator, task=task)
        seconds[f"first batch after resuming at step {step}, s"] = first[0] - start
        outcome.judge(f"resuming at step {step}", first[0] - start <= 5.0)
        shutil.rmtree(folder)
    return seconds
