"""Record what a person sees: first run, Ctrl-C with two processes, resume, best checkpoint, typical mistakes.

python -m benchmarks.terminal_session docs/results/terminal_session.txt

Commands run in a pseudo-terminal, in a temporary folder with generated videos; of progress bars the end is kept.
"""

import argparse
import os
import pty
import re
import shlex
import struct
import sys
import tempfile
import termios
import time
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

import pyte

COLUMNS = 130
BIN = Path(sys.executable).parent
ENVIRONMENT = {"COLUMNS": str(COLUMNS), "TERM": "xterm", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
TRAIN = (
    "vidtl train --config toy --output_dir runs/toy --schedule.length '12 epochs' --training.evaluate_every_epochs 4 "
    "--processes 2"
)

COMMANDS = (
    ("Generated videos", "vidtl make_toy data/toy --videos_per_class_train 24 --videos_per_class_val 12", ""),
    ("A first run, stopped by Ctrl-C", TRAIN, "step"),
    ("The same command resumes", TRAIN, ""),
    ("And again: nothing is left to do", TRAIN, ""),
    ("The best checkpoint, and the last", "vidtl eval --checkpoint runs/toy --html false", ""),
    ("", "vidtl eval --checkpoint runs/toy --step last --html false", ""),
    ("A clip", "vidtl predict data/toy/videos/val/03qR15g22UX_000218_000220.mp4 --checkpoint runs/toy", ""),
    ("Typical mistakes", "vidtl train --config toy --output_dir runs/toy2 --lr 0.1", ""),
    ("", "vidtl train --config toy --output_dir runs/toy2 --data.root data/toys", ""),
    ("", "vidtl train --config toy --output_dir runs/toy2 --schedule.length 12", ""),
    ("", "vidtl predict data/toy --checkpoint runs/toy/summary.json", ""),
    ("", "vidtl predict https://example.com/clip.mp4 --checkpoint runs/toy", ""),
)
"""Heading, command, and a word of the output after which Ctrl-C is pressed, if any."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for heading, command, stop_after in COMMANDS:
            text, code = record(command, Path(folder), stop_after)
            print(text, flush=True)
            title = f"# {heading}\n" if heading else ""
            parts.append(f"{title}$ {command}\n{text}\n[exit code {code}]\n".replace(str(Path(folder).resolve()), "."))
    output.write_text("\n".join(parts), encoding="utf-8")


def record(command: str, folder: Path, stop_after: str) -> tuple[str, int]:
    """Run a command as a terminal would; return what stays on the screen, and its exit code."""
    words = shlex.split(command)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execve(BIN / words[0], words, os.environ | ENVIRONMENT)
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    output, pressed = b"", False
    with suppress(OSError):  # the terminal was left by all processes
        while data := os.read(terminal, 65536):
            output += data
            if stop_after and not pressed and re.search(rf"{stop_after}.* [2-9]\d*/".encode(), output):
                pressed = True
                time.sleep(1)
                os.write(terminal, b"\x03")
    os.close(terminal)
    return screen(output), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def screen(output: bytes) -> str:
    """Return the text that a terminal shows in the end."""
    terminal = pyte.Screen(COLUMNS, 500)
    pyte.ByteStream(terminal).feed(output)
    return "\n".join(line.rstrip() for line in terminal.display).strip("\n")


if __name__ == "__main__":
    main()
