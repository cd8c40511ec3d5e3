"""Files that are written whole or not at all, and untrusted text in terminals, one-line messages and figures."""

import errno
import glob
import logging
import os
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from vidtl.errors import UserError

_log = logging.getLogger(__name__)

_LOCK = ".lock"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = dict.fromkeys(FULL_DISK, "free some room there, then repeat the command")
_REMEDIES[errno.EMFILE] = "allowed: a higher limit (ulimit -n), or fewer workers"

LONGEST_LINE = 2_000
"""Characters of a line on a terminal."""
JOINERS = "\u200c\u200d"
"""Format characters of Persian, the Indic scripts and emoji, which change no order."""

_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def inside(path: Path, folder: Path) -> Path:
    """Return the path of an output in a folder, which may be a link; UserError if a link below leads out of it."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} is or lies in a link that leads out of {folder}; allowed: files of its own")
    return path


@contextmanager
def replacing(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path of a file, or folder, that replaces `path` at the end; after an error or kill all stays.

    UserError where it cannot be written, as on a full disk. Leftovers of killed writers, with no lock, are removed.
    """
    folder = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with user_error_if_not_written(path):
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
            with suppress(OSError), (left / _LOCK).open("r+") as file:
                if lock(file, warns=False):
                    remove(left)
        folder.mkdir()
        try:
            with (folder / _LOCK).open("w") as file:
                lock(file, warns=False)
                written = folder / path.name
                if is_folder:
                    written.mkdir()
                yield written
                flush_to_disk(written)
                written.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def require_new_directory(path: Path) -> None:
    """Raise a UserError for a path that exists, unless it is an empty directory."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists and is no empty directory; allowed: a new or empty one")


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that gets the name `path` at the end; UserError as `replacing`."""
    require_new_directory(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, is_folder=True) as temporary:
        yield temporary


def flush_to_disk(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 file that replaces `path` once it is complete; lone surrogates are written as escapes."""
    with replacing(path) as new, new.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield file


def lock(file: IO[Any], warns: bool = True) -> bool:
    """Lock a file until it is closed; False, with a warning, without locks. BlockingIOError: another has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        # Not flock: forked decoding workers inherit it and outlive a killed run for seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(*error.args) from error
        if warns:
            message = "no locks on the file system of %s (%s): nothing keeps a second process from writing there, too"
            _log.warning(message, file.name, error.strerror)
        return False
    return True


@contextmanager
def user_error_if_not_written(path: Path) -> Iterator[None]:
    """Turn an OSError in the block that writes `path`, such as a full disk, into a `UserError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} could not be written: {problem_of_disk(error)}") from error


def problem_of_disk(error: BaseException) -> str:
    """Describe an error of the file system, and its remedy if there is one."""
    text = getattr(error, "strerror", None) or str(error)
    for number, remedy in _REMEDIES.items():
        if getattr(error, "errno", None) == number or f"(os error {number})" in text:  # safetensors has text only
            return f"{text}; {remedy}"
    return text


def say(*lines: str, file: IO[str] | None = None) -> None:
    """Print lines of any origin, each `printable` within `LONGEST_LINE` characters: the one way to a terminal."""
    print(*(printable(line, LONGEST_LINE) for line in lines), sep="\n", file=file, flush=True)


def printable(text: str, length: int = 0) -> str:
    """Write control, format and surrogate characters as escapes; a `length` above 0 leaves the middle out."""
    if 0 < length < len(text) // 2:
        text = text[:length] + text[-length:]
    shown = "".join(map(_escaped, text))
    if 0 < length < len(shown):
        head = length * 2 // 3
        shown = f"{shown[:head].rstrip()}…{shown[head + 1 - length :].lstrip()}"
    return shown


def spreadsheet_cell(text: str) -> str:
    """Make text `printable`, and put an apostrophe before what a spreadsheet would take for a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA_STARTS) else shown


def _escaped(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cs", "Cf", "Zl", "Zp") and character not in JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
