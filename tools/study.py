"""Run a study: one experiment in several variants, from several seeds, as one table and one figure.

Everything:        python tools/study.py configs/studies/toy_placement.yaml --output_dir runs/toy_placement
On a GPU:          ... --launch configs/accelerate/gpu.yaml
Data elsewhere:    ... --data.root /data/toy --data.num_workers 8, or any other option of tools/train.py, for all runs
One of four jobs:  ... --shard 2/4; then --table_only
Table and figure:  ... --table_only --results_dir docs/results/toy_placement

The same command again goes on where it was stopped: finished runs are kept, an interrupted one resumes from its newest
checkpoint, and a run is judged again where the study asks for another checkpoint or other evaluation.* options. Every
run lies in OUTPUT_DIR/VARIANT/seed-N and is an ordinary one, for tools/eval.py and the others. Runs that results.json
in RESULTS_DIR tells of are taken from there once their folders are gone, so that a study can go on on another machine.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from command_line import ExperimentParser, PlainParser, parse_experiment

from vidtl.config import ExperimentConfig
from vidtl.config.load import load
from vidtl.config.study import StudyConfig, StudyRow
from vidtl.errors import UserError
from vidtl.runtime.exit import exit_on_error, run_tool

TOOLS = Path(__file__).parent

JUDGED = "judged"
"""Folder of a run for its evaluation by the study."""

log = logging.getLogger("vidtl.study")


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The study's own options, and those for all of its runs."""
    parser = PlainParser(
        usage="study.py study --output_dir OUTPUT_DIR [options] [--section.key value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("study", type=Path, help="YAML file of the study; see configs/studies/")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--results_dir", type=Path, help="folder of the table and the figure (default: --output_dir)")
    parser.add_argument("--launch", type=Path, help="configuration for `accelerate launch` (default: one process)")
    parser.add_argument("--shard", help="do part i of n of the runs, such as 2/4, and write no table yet")
    parser.add_argument("--table_only", action="store_true", help="start no run; tell what is finished")
    parser.add_argument("--rounds", type=int, default=9, help="turns in which the steps of all variants are timed")
    options, settings = parser.parse_known_args()
    for argument in settings:
        if argument.startswith("--") and "." not in argument.partition("=")[0]:
            parser.error(f"unknown option {argument}")
    if options.rounds < 1:
        raise UserError(f"--rounds is {options.rounds}; allowed: 1 or more")
    if options.table_only and options.shard:
        raise UserError("--table_only and --shard are given; allowed: one of them, --table_only after all parts")
    return options, settings


if __name__ == "__main__":
    with exit_on_error():  # mistakes, and --help, end here and do not wait for the imports below
        load(parse()[0].study, StudyConfig)

import torch
from rich.console import Console
from rich.table import Table

from vidtl.data.description import load_description, read_records
from vidtl.data.protocols import protocol_of_run
from vidtl.evaluation.provenance import folder_name
from vidtl.evaluation.report import METRICS
from vidtl.runtime.child import run_to_end
from vidtl.runtime.logging import configure_logging
from vidtl.runtime.shard import Shard
from vidtl.runtime.versions import installed_versions
from vidtl.studies.cost import measure_costs
from vidtl.studies.record import RunKey, read_recorded
from vidtl.studies.results import RESULTS, RowResult, write_results
from vidtl.studies.runs import RunResult, finished_steps, judged_checkpoint, read_run
from vidtl.training.run_directory import RunDirectory, check_same_experiment
from vidtl.visualize.study import draw_study


class Run(NamedTuple):
    """One variant from one seed."""

    row: StudyRow
    seed: int
    config: ExperimentConfig
    arguments: list[str]
    """Options of `tools/train.py` but for the output directory."""
    folder: Path
    evaluation: str
    """Name of the folder that `tools/eval.py` leaves."""

    @property
    def key(self) -> RunKey:
        """What the table calls it."""
        return RunKey(self.row.name, self.seed)


def main() -> None:
    options, settings = parse()
    configure_logging(True)
    study = load(options.study, StudyConfig)
    experiment = options.study.parent / study.experiment
    runs = list(planned_runs(study, experiment, options.output_dir, settings))
    folder = options.results_dir or options.output_dir
    recorded = recorded_runs(folder / RESULTS, study, runs)
    shard = Shard.parse(options.shard) if options.shard else Shard(1, 1)
    if options.table_only:
        check_judged(runs, study)
    else:
        execute_unfinished([run for run in shard.take(runs) if run.key not in recorded], study, options.launch)
    if shard.count > 1:
        print(f"{shard.name}  finished; --table_only tells of all parts")
        return
    results = results_of(study, runs, recorded, options.rounds)
    files = write_results(results, about(study), folder)
    draw_study(results, study.title, study.metric, folder / "study.png")
    print_results(study, results)
    print(f"results  {folder}: {', '.join(file.name for file in files)}, study.png")


def planned_runs(study: StudyConfig, experiment: Path, output_dir: Path, settings: Sequence[str] = ()) -> Iterator[Run]:
    """Every run, all variants with their first seed before any with its second; `settings` are options for all of them.

    Raises:
        UserError: an option that no experiment has, or that rows of the study set; a folder that holds a run of another
            experiment.
    """
    parser = ExperimentParser("study.py", "")
    check_settings(settings, study)
    for turn in range(max(len(row.seeds) for row in study.rows)):
        for row in study.rows:
            if turn < len(row.seeds):
                seed = row.seeds[turn]
                arguments = ["--config", str(experiment), "--training.seed", str(seed)]
                for key, value in (study.options | row.options).items():
                    arguments += [f"--{key}", as_argument(value)]
                arguments += settings
                _, config = parse_experiment(parser, arguments)
                folder = output_dir / row.folder / f"seed-{seed}"
                check_same_experiment(RunDirectory(folder).config_file, config)
                description = load_description(config.data.dataset)
                protocol = protocol_of_run(config.evaluation.protocol, description.protocol)
                judged = replace(config, data=replace(config.data, eval_split=study.judged_on))
                yield Run(row, seed, config, arguments, folder, folder_name(judged, protocol))


def check_settings(settings: Sequence[str], study: StudyConfig) -> None:
    """UserError for an option for all runs that would make the study another one."""
    decided = {"training.seed", *(key for row in study.rows for key in row.options)}
    for argument in settings:
        key = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and key in decided:
            raise UserError(f"--{key} is given for all runs; allowed: options that neither rows nor seeds decide")


def recorded_runs(file: Path, study: StudyConfig, runs: Sequence[Run]) -> dict[RunKey, RunResult]:
    """Runs of an earlier table whose folders are gone; see `vidtl.studies.record`."""
    planned = {run.key: run.config for run in runs}
    at_hand = {run.key for run in runs if finished_steps(run.folder) is not None}
    recorded = read_recorded(file, judgement(study), planned, at_hand)
    if recorded:
        log.info("%d runs whose folders are gone are taken from %s", len(recorded), file)
    return recorded


def judgement(study: StudyConfig) -> dict[str, Any]:
    """What of the study itself decides its figures."""
    return {"metric": study.metric, "judged_on": study.judged_on, "checkpoint": study.checkpoint}


def as_argument(value: object) -> str:
    """A value of a row as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def execute_unfinished(runs: Sequence[Run], study: StudyConfig, launch: Path | None) -> None:
    """One after the other."""
    for number, run in enumerate(runs, start=1):
        if metrics_file(run, study) is None:
            log.info("run %d of %d: %s, seed %d", number, len(runs), run.row.name, run.seed)
            execute(run, study, launch)


def execute(run: Run, study: StudyConfig, launch: Path | None) -> None:
    """Train unless that is done, and judge the checkpoint that the study names."""
    if finished_steps(run.folder) is None:
        call(["train.py", *run.arguments, "--output_dir", str(run.folder)], launch)
    checkpoint = judged_checkpoint(run.folder, study.checkpoint, study.metric)
    arguments = ["--checkpoint", str(checkpoint), "--data.eval_split", study.judged_on]
    call(["eval.py", *run.arguments, *arguments, "--output_dir", str(run.folder / JUDGED / checkpoint.name)], launch)


def metrics_file(run: Run, study: StudyConfig) -> Path | None:
    """The figures of the run, judged as the study asks for it; None where it has not been."""
    if finished_steps(run.folder) is None:
        return None
    checkpoint = judged_checkpoint(run.folder, study.checkpoint, study.metric)
    file = run.folder / JUDGED / checkpoint.name / run.evaluation / METRICS
    return file if file.is_file() else None


def check_judged(runs: Sequence[Run], study: StudyConfig) -> None:
    """UserError where a finished run would be missing from the table: it is not judged, or was in another way."""
    left = [run for run in runs if finished_steps(run.folder) is not None and metrics_file(run, study) is None]
    if left:
        raise UserError(
            f"{len(left)} finished runs are not judged as the study asks, {left[0].folder} among them; "
            "leave --table_only out to do that"
        )


def call(command: list[str], launch: Path | None) -> None:
    """Run a tool to its end; a signal that stops the study stops the tool first.

    Raises:
        UserError: the tool failed.
        StoppedBySignalError: a signal asked the study to stop.
    """
    start = [sys.executable]
    if launch:
        start += ["-m", "accelerate.commands.launch", "--quiet", "--config_file", str(launch)]
    code = run_to_end([*start, str(TOOLS / command[0]), *command[1:]])
    if code > 128:  # stopped by a signal; the tool has said so
        sys.exit(code)
    if code:
        raise UserError(f"stopped: {shlex.join(command)} ended with code {code}")


def results_of(
    study: StudyConfig, runs: list[Run], recorded: Mapping[RunKey, RunResult], rounds: int
) -> list[RowResult]:
    """The table; times are measured now, in turns."""
    experiments = [next(run.config for run in runs if run.row is row) for row in study.rows]
    first = experiments[0]
    classes = read_records(load_description(first.data.dataset), study.judged_on, Path(first.data.root)).classes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    costs = measure_costs(experiments, len(classes), study.batch_size, rounds, device)
    finished = dict(recorded)
    for run in runs:
        if file := metrics_file(run, study):
            finished[run.key] = read_run(run.folder, file, study.metric)
    return [
        RowResult(
            row=row,
            config=config,
            cost=cost,
            runs={key.seed: result for key, result in sorted(finished.items()) if key.row == row.name},
        )
        for row, config, cost in zip(study.rows, experiments, costs, strict=True)
    ]


def about(study: StudyConfig) -> dict[str, Any]:
    """What a reader needs to judge the table or to make it again."""
    return {
        "title": study.title,
        "command": shlex.join(["python", "tools/study.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        **judgement(study),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": installed_versions(["vidtl", "torch"]),
    }


def print_results(study: StudyConfig, results: list[RowResult]) -> None:
    """The table for people."""
    table = Table(title=study.title, title_justify="left")
    table.add_column("variant")
    compared = ("parameters", "GMAC", "GMAC ratio", "step time ratio", "step memory", "clips/s ratio", "data wait")
    for heading in ("seeds", study.metric, "published", *compared):
        table.add_column(heading, justify="right")
    for result in results:
        cost, published = result.cost, result.row.published
        spread = f" ± {100 * result.deviation:.2f}" if result.deviation is not None else ""
        table.add_row(
            result.row.name,
            f"{len(result.values)}/{len(result.row.seeds)}",
            f"{100 * result.mean:.2f}{spread}" if result.mean is not None else "",
            shown(published, "{:.2f}", 100),
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e9:.4f}",
            f"{cost.multiply_add_ratio:.3f}",
            f"{cost.time_ratio:.3f}",
            shown(cost.step_memory_bytes, "{:.0f} MB", 1e-6),
            shown(result.clips_ratio(results[0]), "{:.2f}"),
            shown(result.data_wait_share, "{:.0f} %", 100),
        )
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def shown(value: float | None, template: str, factor: float = 1) -> str:
    """A cell; empty where there is nothing to tell."""
    return template.format(value * factor) if value is not None else ""


if __name__ == "__main__":
    run_tool(main)
