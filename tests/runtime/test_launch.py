import re
import signal
import subprocess
import sys

import pytest
import torch
from accelerate.state import GradientState

from tests.environment import ENVIRONMENT, launch_command
from tests.refusals import refused
from vidtl.errors import UserError
from vidtl.runtime.launch import make_accelerator, resolve_precision
from vidtl.runtime.signals import StoppedBySignalError, run_tool


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("clip.stride is 0;\nallowed: 1 or more"), 2, "error: clip.stride is 0; allowed: 1 or more\n"),
        (UserError("\x1b[2Jv\u202e.mp4"), 2, "error: \\x1b[2Jv\\u202e.mp4\n"),
        (StoppedBySignalError(signal.SIGTERM), 143, "stopped by SIGTERM\n"),
        (StoppedBySignalError(signal.SIGUSR1, "stopped; resume"), 138, "stopped; resume\n"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT\n"),
        (None, 0, ""),
    ],
)
def test_an_expected_end_is_one_line_and_its_exit_code(capfd, error, code, message):
    def main():
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        run_tool(main)
    assert ended.value.code == code
    assert capfd.readouterr() == ("", message)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 / 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_precision_without_a_gpu():
    assert [resolve_precision(p) for p in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    with refused("training.precision", "'fp16'", "'fp32'"):
        resolve_precision("fp16")


@pytest.mark.parametrize(("native", "precision"), [(False, "fp32"), (True, "bf16")])
def test_auto_is_bf16_on_a_gpu_with_native_support(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert resolve_precision("auto") == precision


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", ("gradient_accumulation_steps", "4", "1")),
        ("ACCELERATE_USE_DEEPSPEED", "true", ("distributed_type", "DEEPSPEED", "FSDP2")),
    ],
)
def test_unsupported_settings_of_the_launcher_are_refused(monkeypatch, variable, value, parts):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(GradientState, "_shared_state", {})  # Accelerate's settings of this process
    with refused("the launcher's", *parts):
        make_accelerator("fp32")


def run_script(folder, text, *arguments, launcher=(), **variables):
    (folder / "script.py").write_text(text)
    command = [sys.executable, *launcher, str(folder / "script.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT | variables)


INTERRUPTED = """
import os, signal, sys
from vidtl.runtime.signals import exit_on_error, run_tool
def interrupt():
    os.kill(os.getpid(), int(sys.argv[1]))
    os.kill(os.getpid(), int(sys.argv[1]))  # as launchers repeat it
with exit_on_error():
    if sys.argv[2] == "options":
        interrupt()
if sys.argv[2] == "imports":
    interrupt()
run_tool(interrupt)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("when", ["options", "imports", "work"])
def test_a_tool_is_stopped_with_one_line_at_any_time(tmp_path, number, when):
    done = run_script(tmp_path, INTERRUPTED, str(int(number)), when)
    assert (done.returncode, done.stderr) == (128 + number, f"stopped by {number.name}\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize(("config", "lines"), [("gpu", 1), ("cpu", 0), ("cpu_2_processes", 0)])
def test_a_configuration_for_gpus_says_first_that_there_is_none(tmp_path, config, lines):
    text = "from vidtl.runtime.launch import make_accelerator; make_accelerator('fp32')"
    done = run_script(tmp_path, text, launcher=launch_command(config, "--quiet")[1:], CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("configs/accelerate/cpu.yaml") == lines


TWO = """
import sys
from tests.refusals import refused
from vidtl.errors import UserError
from vidtl.runtime.signals import run_tool
from vidtl.runtime.launch import PROCESS_GROUP_TIMEOUT, make_accelerator, on_main_process
from torch.distributed.distributed_c10d import _get_default_group

def main():
    accelerator = make_accelerator("fp32")
    assert accelerator.num_processes == 2, accelerator.num_processes
    assert _get_default_group()._get_backend(accelerator.device).options._timeout == PROCESS_GROUP_TIMEOUT
    index = accelerator.process_index
    assert on_main_process(accelerator, lambda: 7 + index) == 7
    def refuse():
        raise UserError("the first process refuses")
    with refused("the first process refuses"):
        on_main_process(accelerator, refuse)
    print(f"checked {index}", flush=True)
    accelerator.wait_for_everyone()
    if sys.argv[1] == "all" or index == int(sys.argv[1]):
        raise UserError(f"process fails {sys.argv[1]}")
    accelerator.wait_for_everyone()  # fails here when the other process ends

run_tool(main)
"""


@pytest.mark.parametrize("which", ["all", "1"])
def test_two_processes_agree_and_report_an_error_once(tmp_path, which):
    done = run_script(tmp_path, TWO, which, launcher=("-m", "torch.distributed.run", "--nproc_per_node", "2"))
    # Both write to one pipe, a line and its end apart, so that lines may run together.
    assert sorted(re.findall(r"checked \d", done.stdout)) == ["checked 0", "checked 1"]
    assert done.returncode != 0
    assert done.stderr.count(f"error: process fails {which}\n") == 1
    assert "[rank" not in done.stderr  # no process's traceback
    assert "UserError" not in done.stderr
    assert "exitcode  : 2 " in done.stderr


BUSY = """
import atexit, signal, sys, threading
import torch
from vidtl.runtime.signals import StoppedBySignalError, run_tool
from vidtl.runtime.launch import make_accelerator

atexit.register(print, "left in order")

def main():
    make_accelerator("fp32")
    assert torch.distributed.is_initialized()
    tensor = torch.ones(100)
    def use_tensors():
        while True:
            tensor + tensor
    threading.Thread(target=use_tensors, daemon=True).start()
    if sys.argv[1] == "143":
        raise StoppedBySignalError(signal.SIGTERM, "stopped")

run_tool(main)
"""


@pytest.mark.parametrize("code", [0, 143])
def test_a_process_of_a_group_ends_with_its_code_while_threads_hold_tensors(tmp_path, code):
    """As a worker thread of gloo may; tearing down the interpreter would abort the process."""
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = run_script(tmp_path, BUSY, str(code), **group)
    assert done.returncode == code, done.stderr
    assert done.stdout == "left in order\n"
