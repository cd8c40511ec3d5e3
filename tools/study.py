"""Run a study: variants of one experiment from several seeds, compared in a table and a figure.

Everything:        python tools/study.py configs/studies/toy_placement.yaml --output_dir runs/toy_placement
On a GPU:          ... --launch configs/accelerate/gpu.yaml
Data elsewhere:    ... --data.root /data/toy --data.num_workers 8, or any other option of tools/train.py, for all runs
One of four jobs:  ... --shard 2/4; then --table_only
Table and figure:  ... --table_only --results_dir docs/results/toy_placement

The same command continues: finished runs are kept, interrupted runs resume, and a run is evaluated again for another
checkpoint or other evaluation.* options. Runs are in OUTPUT_DIR/ROW/seed-N; results in RESULTS_DIR/results.json are
reused if their run folders are missing.
"""

import argparse
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import study_table
from command_line import DEFAULTS, ExperimentParser, PlainParser, find_config, parse_experiment
from study_table import RowResult, RunKey, RunResult, StudyConfig, StudyRow

from vidtl.config import ExperimentConfig
from vidtl.config.load import load
from vidtl.errors import UserError, nearest_key
from vidtl.runtime.files import say
from vidtl.runtime.signals import StoppedBySignalError, exit_on_error, run_tool

log = logging.getLogger("vidtl.study")


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line into the options of this tool and the settings for all runs."""
    parser = PlainParser(
        usage="study.py study --output_dir OUTPUT_DIR [options] [--section.key value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=find_config, help="YAML file of the study; see configs/studies/")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results_dir", type=Path, help="folder of the table and the figure (default: --output_dir)")
    parser.add_argument("--launch", type=Path, help="configuration for `accelerate launch` (default: one process)")
    parser.add_argument("--shard", help="execute part i of n of the runs, such as 2/4, and write no table")
    parser.add_argument("--table_only", action="store_true", help="write the table of the finished runs; start none")
    options, settings = parser.parse_known_args()
    known = [*parser._option_string_actions, *(f"--{key}" for key in DEFAULTS)]
    for argument in settings:
        if argument.startswith("--") and "." not in argument.partition("=")[0]:
            raise UserError(f"unknown option {argument}; {nearest_key(argument, known, 'see --help')}")
    if options.table_only and options.shard:
        raise UserError("--table_only and --shard are given; allowed: one of them, --table_only after all parts")
    return options, settings


if __name__ == "__main__":
    with exit_on_error():  # mistakes and --help end here, before the slow imports below
        load(parse()[0].study, StudyConfig)

import psutil
import torch

from vidtl.annotations.description import load_description, read_records
from vidtl.data.protocols import protocol_of_run
from vidtl.evaluation.provenance import folder_name
from vidtl.evaluation.report import METRICS_FILE
from vidtl.models import build_model
from vidtl.models.base import with_num_tokens
from vidtl.models.complexity import count_multiply_adds, count_parameters
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.shard import Shard
from vidtl.runtime.signals import StopSignals
from vidtl.training.checkpoint_directory import checkpoint_name
from vidtl.training.run_directory import RunDirectory, check_same_experiment


class Run(NamedTuple):
    """One row with one seed."""

    row: StudyRow
    seed: int
    config: ExperimentConfig
    arguments: list[str]
    """Options of `tools/train.py` without the output directory."""
    folder: Path
    evaluation: str
    """Name of the folder that `tools/eval.py` writes."""

    @property
    def key(self) -> RunKey:
        return self.row.name, self.seed


def main() -> None:
    options, settings = parse()
    configure_logging(True)
    study = load(options.study, StudyConfig)
    runs = list(planned_runs(study, options.study.parent / study.experiment, options.output_dir, settings))
    results = (options.results_dir or options.output_dir) / "results.json"
    trained = {run.key for run in runs if judged_checkpoint(run, "last")}
    recorded = study_table.recorded_results(results, study, {run.key: run.config for run in runs}, trained)
    if recorded:
        log.info("%d runs without folders are taken from %s", len(recorded), results)
    shard = Shard.parse(options.shard) if options.shard else Shard(1, 1)
    if not options.table_only:
        execute_unfinished([run for run in shard.take(runs) if run.key not in recorded], study, options.launch)
    if shard.count > 1:
        say(f"{shard.name} finished; --table_only writes the table of all parts")
        return
    rows = [collect(row, [run for run in runs if run.row is row], study, recorded) for row in study.rows]
    study_table.write_table(study, rows, results)
    study_table.draw_table(study, rows, results.with_name("study.png"))
    study_table.print_table(study, rows)
    say(f"results  {results.parent}: results.json, results.csv, study.png")


def planned_runs(study: StudyConfig, experiment: Path, output_dir: Path, settings: Sequence[str] = ()) -> Iterator[Run]:
    """Yield all runs, those with the first seed of each row first; `settings` are options for all of them.

    UserError: an unknown option or one set by rows, no split `judged_on`, or a folder of another experiment.
    """
    decided = {"training.seed", *(key for row in study.rows for key in row.options)}
    for key in (argument.partition("=")[0] for argument in settings):
        if key.startswith("--") and key.removeprefix("--") in decided:
            raise UserError(f"{key} is given for all runs; allowed: options that neither rows nor seeds set")
    parser = ExperimentParser("study.py", "")
    for turn in range(max(len(row.seeds) for row in study.rows)):
        for row in (row for row in study.rows if turn < len(row.seeds)):
            arguments = ["--config", str(experiment), "--training.seed", str(row.seeds[turn])]
            for key, value in (study.options | row.options).items():
                arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
            arguments += settings
            _, config = parse_experiment(parser, arguments)
            home = next(each for each in study.rows if each.options == row.options)
            folder = output_dir / home.folder / f"seed-{row.seeds[turn]}"
            check_same_experiment(RunDirectory(folder).config_file, config)
            description = load_description(config.data.dataset, config.data.root)
            description.split(study.judged_on)
            protocol = protocol_of_run(config.evaluation.protocol, description.protocol)
            judged = replace(config, data=replace(config.data, eval_split=study.judged_on))
            name = folder_name(judged, protocol, str(row.tokens or ""))
            yield Run(row, row.seeds[turn], config, arguments, folder, name)


def judged_checkpoint(run: Run, which: str) -> Path | None:
    """Return the checkpoint to evaluate, None before the run has that length; UserError if `which` does not exist."""
    directory = RunDirectory(run.folder)
    file = directory.summary_file
    summary = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"status": "absent"}
    if summary["status"] != "finished" or summary["config"]["schedule"]["length"] != run.config.schedule.length:
        return None
    best, steps = summary["results"]["best"], summary["results"]["steps"]
    if which == "best" and not best:
        raise UserError(f"{file} has no best evaluation; allowed: checkpoint: last")
    return directory.checkpoints / checkpoint_name(best["step"] if which == "best" else steps)


def metrics_file(run: Run, study: StudyConfig) -> Path | None:
    """Return the metrics file of the study's checkpoint, split and protocol; None before it is written."""
    checkpoint = judged_checkpoint(run, study.checkpoint)
    file = run.folder / "judged" / (checkpoint.name if checkpoint else "") / run.evaluation / METRICS_FILE
    return file if checkpoint and file.is_file() else None


def execute_unfinished(runs: Sequence[Run], study: StudyConfig, launch: Path | None) -> None:
    """Train and evaluate unfinished runs one after the other; UserError at the end if some have failed."""
    failed = []
    for number, run in enumerate(runs, start=1):
        if metrics_file(run, study) is None:
            log.info("run %d of %d: %s, seed %d", number, len(runs), run.row.name, run.seed)
            try:
                execute(run, study, launch)
            except UserError as error:
                log.error("%s", error)
                failed.append(f"{run.row.name}, seed {run.seed}")
    if failed:
        names = "; ".join(failed)
        raise UserError(f"{len(failed)} of {len(runs)} runs have failed: {names}; --table_only writes the others")


def execute(run: Run, study: StudyConfig, launch: Path | None) -> None:
    """Train and evaluate one run; UserError if a tool fails."""
    if judged_checkpoint(run, study.checkpoint) is None:
        call(["train.py", *run.arguments, "--output_dir", str(run.folder)], launch)
    checkpoint = judged_checkpoint(run, study.checkpoint)
    assert checkpoint is not None
    arguments = ["--checkpoint", str(checkpoint), "--data.eval_split", study.judged_on]
    arguments += ["--tokens", str(run.row.tokens)] if run.row.tokens else []
    output_dir = run.folder / "judged" / checkpoint.name
    call(["eval.py", *run.arguments, *arguments, "--output_dir", str(output_dir)], launch)


def call(command: list[str], launch: Path | None) -> None:
    """Run a tool in a subprocess; UserError if it fails."""
    start = ["-m", "accelerate.commands.launch", "--quiet", "--config_file", str(launch)] if launch else []
    code = run_to_end([sys.executable, *start, str(Path(__file__).with_name(command[0])), *command[1:]])
    if code > 128:  # stopped by a signal, which the tool has reported
        sys.exit(code)
    if code:
        raise UserError(f"stopped: {shlex.join(command)} ended with code {code}")


def run_to_end(command: Sequence[str]) -> int:
    """Run a subprocess and return its exit code; StoppedBySignalError once it has ended after a stop signal.

    The signal is sent to each process started, because launchers do not forward it.
    """
    with StopSignals() as signals:
        process = subprocess.Popen(command)
        try:
            with signals.immediate():
                return process.wait()
        except StoppedBySignalError:
            started = [psutil.Process(process.pid)]
            with suppress(psutil.NoSuchProcess):
                started += started[0].children(recursive=True)
            for each in started:
                with suppress(psutil.NoSuchProcess):
                    each.terminate()
            process.wait()
            while any(map(is_running, started)):
                time.sleep(0.1)
            raise


def is_running(process: psutil.Process) -> bool:
    """Check that a process exists and is no zombie; orphans may stay zombies."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@cache
def num_classes(dataset: str, split: str, root: str, follow_links: bool) -> int:
    """Read the number of classes, once for all rows with the same data."""
    return len(read_records(load_description(dataset, root), split, Path(root), follow_links).classes)


def collect(row: StudyRow, runs: Sequence[Run], study: StudyConfig, recorded: Mapping[RunKey, RunResult]) -> RowResult:
    """Collect the results of a row and count its model; UserError for a run without the evaluation of the study."""
    results = {run.seed: recorded[run.key] for run in runs if run.key in recorded}
    for run in runs:
        if file := metrics_file(run, study):
            results[run.seed] = study_table.read_result(RunDirectory(run.folder).summary_file, file, study.metric)
        elif judged_checkpoint(run, study.checkpoint):
            raise UserError(f"the run {run.folder} has no evaluation of this study; leave --table_only out")
    config, data = runs[0].config, runs[0].config.data
    classes = num_classes(data.dataset, study.judged_on, data.root, data.follow_links)
    with torch.device("meta"):
        model = build_model(config.model, config.clip, classes)
        model = with_num_tokens(model, row.tokens) if row.tokens else model
    costs = {"parameters": count_parameters(model), "multiply_adds": count_multiply_adds(model, config.clip)}
    return RowResult(row=row, config=config, runs=dict(sorted(results.items())), **costs)


if __name__ == "__main__":
    run_tool(main)
