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
from vidtl.training.run_summary import git_state

RESULTS = REPOSITORY / "docs/results/reliability.json"

EXPERIMENTS: dict[str, tuple[Callable[[Bench], Outcome], str, str]] = {
    "kills": (
        kills,
        "2, 11, 17",
        "Kills at random times, two of five inside a save: a complete checkpoint always exists, disk use stays within "
        "its limit, and final weights, average and optimizer are bitwise identical",
    ),
    "signals": (
        signals,
        "4",
        "SIGTERM, SIGINT and SIGUSR1 in random steps: that step is saved, the exit code is correct, the resumed run is "
        "bitwise identical; a second signal exits immediately",
    ),
    "resume_grid": (
        resume_grid,
        "5, 6",
        "Real videos with augmentation, MixUp and dropout, resumed at the first, a middle and the last step of epochs "
        "with 0, 1, 2 and 4 workers: bitwise identical",
    ),
    "elastic": (
        elastic,
        "7, 10",
        "1, 2, 3 and 1 processes within one run at the same global batch, with accumulation: losses equal to 1e-5, "
        "learning rates exactly",
    ),
    "forms": (
        forms,
        "12",
        "Checkpoints of plain, compiled, DDP and FSDP2 models resume in every other form; parameter names are plain",
    ),
    "damage": (
        damage,
        "13",
        "Flipped bits, truncated and deleted files: detected, the file named, the previous checkpoint used",
    ),
    "directory_troubles": (
        directory_troubles,
        "15",
        "Output directory not writable or removed, clock jumps: an error of one line, or no effect",
    ),
    "deaths": (
        deaths,
        "18",
        "One of two processes raises or is killed in a read, a step, a save, an evaluation: both exit, the cause is "
        "reported, and the run can resume",
    ),
    "fuzz": (
        fuzz,
        "22",
        "Mutated MP4, MKV and AVI files with each decoder: no crash, no wait over 10 s, the path in every message, "
        "always the number of frames of the manifest",
    ),
    "leaks": (
        leaks,
        "27",
        "Thousands of clips in one process with each decoder: <= 10 kB of memory per clip, no additional open files",
    ),
    "soak": (
        soak,
        "34",
        "Long run with evaluations and three kills: no growth of memory (<= 1 MiB per 1,000 steps), open files or "
        "threads",
    ),
    "cost": (
        cost,
        "35",
        "A checkpoint takes at most 1.3 times a raw write and fsync of the same bytes; the first batch after resuming "
        "is read within 5 s at any step",
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
        "# Reliability: lost runs",
        "",
        "Written by `make stress` (`python -m tests.stress.reliability --help`) from `reliability.json`; `#` is the "
        "number in the test protocol. Tiny models on a CPU over gloo test the engine, not the arithmetic of a GPU. "
        "N cases without a failure mean a failure rate below 3 / N with 95 % confidence.",
        "",
        "| # | test | N | seed | failures | figures | seconds | date, commit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (_, _, title) in EXPERIMENTS.items():
        if name in results:
            result = results[name]
            figures = "; ".join(f"{key} {value:.4g}" for key, value in result["figures"].items())
            failures = "; ".join(result["failures"]) or "none"
            rows.append(
                f"| {result['test']} | **{name}**: {title} | {result['cases']} | {result['seed']} "
                f"| {failures} | {figures} | {result['seconds']:.0f} | {result['date']}, {result['commit']} |"
            )
    machines = sorted({result["machine"] for result in results.values()})
    rows += ["", f"Machine: {'; '.join(machines)}. Scale of the cases: "
             f"{', '.join(sorted({str(r['scale']) for r in results.values()}))} "
             "(1 is full size).", ""]  # fmt: skip
    return "\n".join(rows)


if __name__ == "__main__":
    main()
