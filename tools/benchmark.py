#!/usr/bin/env python
"""What things cost, each measured in one run.

    python tools/benchmark.py conformance FOLDER        frames of every backend against a plain decode
    python tools/benchmark.py decode [VIDEO...]         reading clips beside other libraries
    python tools/benchmark.py model                     models beside other people's, forward and backward
    python tools/benchmark.py train                     whole training steps and the data path, and what limits a run
    python tools/benchmark.py views VIDEO...            opening a video once for all its views

`python tools/benchmark.py COMMAND --help` lists the options of a command. Told are ratios where the machine is a CPU:
its times mean little elsewhere. Let nothing else run meanwhile.
"""

import argparse

import benchmark_conformance
import benchmark_decode
import benchmark_model
import benchmark_train
import benchmark_views
from command_line import PlainParser

from vidtl.errors import UserError
from vidtl.runtime.exit import run_tool

COMMANDS = {
    "conformance": benchmark_conformance,
    "decode": benchmark_decode,
    "model": benchmark_model,
    "train": benchmark_train,
    "views": benchmark_views,
}
"""Modules with `add_options` and `main`; the first line of their docstring is the help."""

TAKE_SETTINGS = {"train"}
"""Commands that any `--section.key value` of an experiment may follow."""


def main() -> None:
    parser = PlainParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        title = (module.__doc__ or "").splitlines()[0]
        module.add_options(
            commands.add_parser(
                name, help=title, description=title, formatter_class=argparse.ArgumentDefaultsHelpFormatter
            )
        )
    options, settings = parser.parse_known_args()
    if settings and options.command not in TAKE_SETTINGS:
        raise UserError(f"unknown option {settings[0]}; see --help")
    if options.output and not options.output.parent.is_dir():
        raise UserError(f"--output is {options.output}; the folder {options.output.parent} does not exist")
    if options.output and options.output.is_dir():
        raise UserError(f"--output is {options.output}, which is a folder; allowed: a file to write")
    options.settings = settings
    COMMANDS[options.command].main(options)


if __name__ == "__main__":
    run_tool(main)
