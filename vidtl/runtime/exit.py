"""End of a tool: exit codes and the one line for a mistake of the user. Needs no torch, so that tools start with it.

Exit codes of every tool: 0 done; 2 a mistake of the user, reported in one line; 128 + n stopped by signal n with
everything in order (130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1); the tool's choice (4: a video could not be
read); 1 with a traceback for anything else.
"""

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from vidtl.errors import UserError

FIRST_REPORT_S = 5.0
"""How long a process keeps an error back that may follow from another's."""


class StoppedBySignalError(Exception):
    """A signal asked the run to stop, and it has: state is saved and nothing is half written."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def run_tool(main: Callable[[], object]) -> NoReturn:
    """Run `main` and end the process with its exit code."""
    with exit_on_error():
        main()
    _end(0)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process where the block raises, with the exit code of the module's docstring.

    Where several processes run, the first cause is reported once: a failing process waits `FIRST_REPORT_S` before it
    reports and ends, because its own error may only follow from another's, and then the launcher ends it meanwhile. The
    first process reports errors of the user at once.
    """
    is_first = int(os.environ.get("RANK", "0")) == 0
    try:
        yield
    except UserError as error:
        if not is_first:
            time.sleep(FIRST_REPORT_S)
        _end(2, f"error: {error}")
    except StoppedBySignalError as stopped:
        _end(128 + stopped.signum, str(stopped) if is_first else "")
    except KeyboardInterrupt:
        _end(128 + signal.SIGINT, "interrupted" if is_first else "")
    except SystemExit as chosen:  # by the tool, or by argparse
        _end(int(chosen.code or 0))
    except Exception:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            time.sleep(FIRST_REPORT_S)
        raise


def _end(code: int, message: str = "") -> NoReturn:
    if message:
        print(" ".join(message.splitlines()), file=sys.stderr, flush=True)
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        sys.exit(code)
    if code == 0:
        distributed.destroy_process_group()  # NCCL may wait for all processes here, and only now do all of them arrive
    # All that a normal exit does except tearing the interpreter down: a thread of gloo that still holds a tensor of the
    # last exchange would then end the process by SIGABRT, whatever the code (pytorch/pytorch#179291).
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
