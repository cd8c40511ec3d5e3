#!/usr/bin/env python
"""Try hard to lose a run, and write down how often that succeeded.

    make stress                                              everything at full size, about an hour on 2 quiet cores
    python -m tests.stress.reliability --scale 0.1           a tenth of the cases
    python -m tests.stress.reliability --only kills soak     some experiments; the others' results stay as they are
    python -m tests.stress.reliability --report              the page again from the results, without running anything

Results go to docs/results/reliability.json as each experiment ends, and the page docs/results/reliability.md is made of
them. Every experiment states how many cases it tried, its seed, and each failure by name.
"""

import argparse
import json
import logging
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tests.environment import REPOSITORY
from tests.stress.decoding import fuzz, leaks
from tests.stress.one_process import cost, damage, directory_troubles, kills, signals, soak
from tests.stress.outcome import Bench, Outcome
from tests.stress.processes import deaths, elastic, forms, resume_grid
from vidtl.runtime.launch import make_accelerator
from vidtl.training.run_directory import git_state

RESULTS = REPOSITORY / "docs/results/reliability.json"

EXPERIMENTS: dict[str, tuple[Callable[[Bench], Outcome], str, str]] = {
    "kills": (
        kills,
        "2, 11, 17",
        "Killed at random times, two of five times inside a save: a whole checkpoint is always left, the disk holds no "
        "more than it should, and weights, average and optimizer end bitwise the same",
    ),
    "signals": (
        signals,
        "4",
        "SIGTERM, SIGINT and SIGUSR1 in random steps: that step is saved, the exit code is right, the end bitwise the "
        "same; a second signal ends at once",
    ),
    "resume_grid": (
        resume_grid,
        "5, 6",
        "Real videos with augmentation, MixUp, dropout: resumed at the first, a middle, the last step of epochs with "
        "0, 1, 2 and 4 workers, bitwise the same",
    ),
    "elastic": (
        elastic,
        "7, 10",
        "1, 2, 3 and 1 processes within one run at the same global batch, with accumulation: losses to 1e-5, learning "
        "rates exactly",
    ),
    "forms": (
        forms,
        "12",
        "Checkpoints of plain, compiled, DDP and FSDP2 models go on in each other form; names in the file are plain",
    ),
    "damage": (
        damage,
        "13",
        "Flipped bytes, cut and deleted files: found, the file named, the checkpoint before it taken",
    ),
    "directory_troubles": (
        directory_troubles,
        "15",
        "The output directory cannot be written or vanishes, the clock jumps: one line, or no difference",
    ),
    "deaths": (
        deaths,
        "18",
        "One of two processes raises or is killed in a read, a step, a save, an evaluation: the other ends too, the "
        "cause is told, and the run can go on",
    ),
    "fuzz": (
        fuzz,
        "22",
        "Mutated MP4, MKV and AVI files through each decoder: no crash, no wait over 10 s, the path in every message, "
        "never another number of frames than the manifest has",
    ),
    "leaks": (
        leaks,
        "27",
        "Clips by the thousand in one process through each decoder: <= 10 kB of memory per clip, no more open files",
    ),
    "soak": (
        soak,
        "34",
        "A long run with evaluations and three kills: no growth of memory (<= 1 MiB per 1,000 steps), open files or "
        "threads",
    ),
    "cost": (
        cost,
        "35",
        "A checkpoint takes at most 1.3 times a raw write and fsync of the same bytes; the first batch after resuming "
        "comes within 5 s wherever the run stopped",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases; 1 is the full size")
    parser.add_argument("--seed", type=int, default=0, help="of the random times, steps and bytes")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file; the page lies beside it")
    parser.add_argument("--report", action="store_true", help="make the page only")
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    if not options.report:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        for name in options.only:
            results[name] = run(name, options.scale, options.seed)
            options.output.write_text(json.dumps(results, indent=1) + "\n")
            print(
                f"{name}: {results[name]['cases']} cases, failures: {results[name]['failures'] or 'none'}", flush=True
            )
    options.output.with_suffix(".md").write_text(page(results))
    sys.exit(any(result["failures"] for result in results.values()))


def run(name: str, scale: float, seed: int) -> dict[str, Any]:
    """Run one experiment, and record how to repeat it."""
    start = time.monotonic()
    action, number, title = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory(prefix="vidtl-stress-") as folder:
        outcome = action(Bench(Path(folder), seed, scale, make_accelerator("fp32")))
    state = git_state(REPOSITORY) or {}
    return {
        "test": number,
        "title": title,
        "seed": seed,
        "scale": scale,
        **asdict(outcome),
        "seconds": round(time.monotonic() - start, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": state.get("commit", "")[:12],
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, torch {torch.__version__}",
        "command": shlex.join(["python", "-m", "tests.stress.reliability", *sys.argv[1:]]),
    }


def page(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    rows = [
        "# Reliability: how often a run was lost",
        "",
        "Made by `make stress` (`python -m tests.stress.reliability --help`) from `reliability.json`; numbers in the "
        "first column are those of the protocol that the project set itself. Tiny models on a CPU over gloo: what is "
        "tried is the engine, not a GPU's arithmetic. N of N without a failure means a failure rate below 3 / N "
        "with 95 % confidence.",
        "",
        "| # | tried | N | seed | failures | figures | seconds | date, commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in EXPERIMENTS:
        if name in results:
            result = results[name]
            figures = "; ".join(f"{key} {value:.4g}" for key, value in result["figures"].items())
            failures = "; ".join(result["failures"]) or "none"
            rows.append(
                f"| {result['test']} | **{name}**: {result['title']} | {result['cases']} | {result['seed']} "
                f"| {failures} | {figures} | {result['seconds']:.0f} | {result['date']}, {result['commit']} |"
            )
    machines = sorted({result["machine"] for result in results.values()})
    rows += ["", f"Machine: {'; '.join(machines)}. Scale of the cases: "
             f"{', '.join(sorted({str(r['scale']) for r in results.values()}))} "
             "(1 is the full size).", ""]  # fmt: skip
    return "\n".join(rows)


if __name__ == "__main__":
    main()
