"""The exception for mistakes of a user, and the search for the nearest valid name."""

import os
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

_URL = re.compile(r"[A-Za-z][\w+.-]+:/")  # a Path has one slash of two; a drive of Windows is one letter
_LONGEST_LIST = 12


class UserError(ValueError):
    """A mistake in the user's input, in one line: place, value, and what is allowed; tools exit with code 2."""


def install_extra(extra: str) -> str:
    """Return the command that installs an optional dependency."""
    return f"pip install -e '.[{extra}]' in the clone of vidtl"


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """End an error message about an unknown `name`: the nearest allowed name, or all of them if none is near."""
    names = [each for each in allowed if each != name]
    nearest = get_close_matches(name, names, n=1, cutoff=0.5) if len(name) <= 200 else []  # in quadratic time
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    shown = ", ".join(names[:_LONGEST_LIST]) + (", ..." if len(names) > _LONGEST_LIST else "")
    return f"allowed: {shown}" if shown else "there is no other name"


def nearest_key(key: str, known: Collection[str], otherwise: str = "") -> str:
    """End a message about an unknown key or option: those with the same last part, the nearest, `otherwise`, or all."""
    last, *last_parts = (spelling(each.rpartition(".")[2]) for each in (key, *known))
    names = {last, *(name for name, *others in map(str.split, _OTHER_NAMES.split(";")) if last in others)}
    near = [each for each, last_part in zip(known, last_parts, strict=True) if last_part in names]
    bare = {each.lstrip("-"): each for each in known}  # all options begin alike
    near = near or [bare[each] for each in get_close_matches(key.lstrip("-"), bare, n=1)]
    return f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise or did_you_mean(key, known)


_OTHER_NAMES = """
learningrate lr maxlr baselr; weightdecay wd; length epochs numepochs maxepochs steps maxsteps; batchsize bs;
warmup warmupepochs warmupsteps; clipnorm gradclip clipgrad maxnorm; precision amp fp16 bf16; numworkers workers;
numframes frames; framesize imgsize imagesize inputsize resolution; root data datadir datapath dataroot;
initfrom pretrained weights finetune; checkpoint model modelpath weights ckpt resume; architecture model arch;
protocol views; outputdir output out workdir savedir
"""
"""Last parts of keys, each with its usual names elsewhere, all by their `spelling`."""


def existing(path: Path, what: str) -> Path:
    """Return the path, or raise a UserError with its first missing part and the nearest name there."""
    if path.exists():
        return path
    if _URL.match(str(path)):
        raise UserError(f"{what} {str(path).replace(':/', '://', 1)!r} is a URL; allowed: a path, so download it first")
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    names = sorted(name for name in os.listdir(folder) if name[0] != ".") if folder.is_dir() else []
    hint = did_you_mean(missing.name, names) if names else f"that {'has no files' if folder.is_dir() else 'is a file'}"
    if hint.startswith("allowed") and (missing != path.absolute() or str(folder) == folder.anchor):
        hint = "no name is similar"  # the list of a folder far above leads nowhere
    raise UserError(f"{what} {str(path)!r} does not exist: {str(folder)!r} has no {missing.name!r}; {hint}")


def spelling(name: str) -> str:
    """Reduce a name to what its spellings share: no case, spaces, underscores or hyphens, and one form of Unicode."""
    return re.sub(r"[\s_-]+", "", normalize("NFC", name).casefold())
