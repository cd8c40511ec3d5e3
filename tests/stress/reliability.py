"""Reliability of runs under kills, signals, process failures and damaged videos.

    make stress                                              all experiments, about an hour on 2 quiet cores
    python -m tests.stress.reliability --scale 0.1           a tenth of the cases
    python -m tests.stress.reliability --only kills soak     some experiments; the other results stay
    python -m tests.stress.reliability --report              the page from the results, without experiments

Results go to docs/results/reliability.json as each experiment ends, and to the page docs/results/reliability.md: number
of cases, seed, and each failure by name.
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
from tests.stress.one_process import kills, signals, soak
from tests.stress.outcome import Bench, Outcome
from tests.stress.processes import deaths, forms, resume_grid
from vidtl.runtime.launch import make_accelerator
from vidtl.training.run_directory import git_state

RESULTS = REPOSITORY / "docs/results/reliability.json"

EXPERIMENTS: dict[str, tuple[Callable[[Bench], Outcome], str]] = {
    "kills": (kills, "2, 11, 17"),
    "signals": (signals, "4"),
    "resume_grid": (resume_grid, "5, 6"),
    "forms": (forms, "12"),
    "deaths": (deaths, "18"),
    "fuzz": (fuzz, "22"),
    "leaks": (leaks, "27"),
    "soak": (soak, "34"),
}
"""Experiments, described by their docstrings, with their numbers in the project's protocol."""


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
            print(f"{name}: {results[name]['cases']} cases, failures: {results[name]['failures'] or 'none'}")
    options.output.with_suffix(".md").write_text(page(results))
    sys.exit(any(result["failures"] for result in results.values()))


def run(name: str, scale: float, seed: int) -> dict[str, Any]:
    """Run one experiment, and record how to repeat it."""
    start = time.monotonic()
    action, number = EXPERIMENTS[name]
    with tempfile.TemporaryDirectory(prefix="vidtl-stress-") as folder:
        outcome = action(Bench(Path(folder), seed, scale, make_accelerator("fp32")))
    state = git_state(REPOSITORY) or {}
    return {
        "test": number,
        "title": " ".join((action.__doc__ or "").split()).rstrip("."),
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
    rows = [
        "# Reliability: lost runs",
        "",
        "Results of `make stress` (`python -m tests.stress.reliability --help`), with tiny models on a CPU over gloo, "
        "from `reliability.json`. The first column has the numbers of the project's protocol. N cases without a "
        "failure mean a failure rate below 3 / N with 95 % confidence.",
        "",
        "| # | test | N | seed | failures | figures | seconds | date, commit |",
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
    scales = ", ".join(sorted({str(result["scale"]) for result in results.values()}))
    rows += ["", f"Machine: {'; '.join(machines)}. Scale of the cases: {scales} (1 is the full size).", ""]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
