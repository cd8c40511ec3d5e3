"""Several processes of a tool on this machine, started through Accelerate, that end as one."""

import logging
import os
import signal
import sys
from argparse import ArgumentParser
from typing import NoReturn

from command_line import CONFIGS, positive

from vidtl.errors import UserError
from vidtl.runtime.signals import WARNING_SIGNAL

CHECKPOINT_S = "120"  # for the last checkpoint, after which the launcher would kill its processes


def add_processes(parser: ArgumentParser) -> None:
    """Add the option --processes."""
    text = "Processes on this machine: one per GPU, or any number on a CPU; other launchers set their own (default: 1)"
    parser.add_argument("--processes", type=positive, default=1, help=text)


def start_processes(count: int) -> None:
    """Run the present command line in `count` processes and end as they do; return in each of them, and for one."""
    if count > 1 and "RANK" not in os.environ:
        _launch(count)


def _launch(count: int) -> NoReturn:
    import torch
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise UserError(f"--processes is {count} on a machine of {gpus} GPUs; allowed: 1 to {gpus}")
    options = {
        "config_file": CONFIGS / "accelerate" / ("gpu_8.yaml" if gpus else "cpu_2_processes.yaml"),
        "num_processes": count,
        "main_process_port": 0,
        "num_cpu_threads_per_process": os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // count),
    }
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", CHECKPOINT_S)
    logging.disable()  # the launcher reports every end of a process, which has reported it
    if WARNING_SIGNAL:
        signal.signal(WARNING_SIGNAL, lambda *_: _forward(WARNING_SIGNAL))
    try:
        launch_command(launch_command_parser().parse_args([*given, *sys.argv]))
    except SignalException as stopped:
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            print(f"error: process {rank} was ended by {failure.signal_name()}", file=sys.stderr)
        sys.exit(max(1, failure.exitcode))
    sys.exit(0)


def _forward(signum: int) -> None:
    """Send a signal to the processes; batch systems send it to them, to the launcher, or to both."""
    import psutil

    for process in psutil.Process().children():
        process.send_signal(signum)
