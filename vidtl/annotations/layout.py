"""Find annotation files, and videos in the usual layouts of a data set.

Each folder is listed once, since on a network file system one system call per video takes minutes for 300,000 of them.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import NamedTuple
from unicodedata import normalize

from vidtl.errors import UserError, existing
from vidtl.video.suffixes import VIDEO_SUFFIXES

_RANKS = {suffix[1:]: rank for rank, suffix in enumerate(VIDEO_SUFFIXES)}
_FIELD = re.compile(r"[^.\[*]+(\*\d{1,9})?:(0([1-9]|1\d|20)d)?")
_UNSAFE = re.compile(r"^/|(^|/)\.\.(/|$)|://|[\0-\x1f\x7f]")

Fields = Mapping[str, str | int]


def is_relative(path: str) -> bool:
    """Return False if the text of a path (links are checked when opened) could leave its folder."""
    return bool(path) and not _UNSAFE.search(path)


def check_relative(path: str, where: str) -> str:
    """Return the path, or raise a UserError if it is not `is_relative`."""
    if not is_relative(path):
        raise UserError(f"{where}: {path!r} is not allowed; a path inside data.root without '..' is")
    return path


class AnnotationPlaces(NamedTuple):
    """Folders that are searched for annotation files and class lists: that of `dataset.yaml`, then the root."""

    root: Path
    folder: Path
    follow_links: bool = True

    def find(self, path: str, what: str = "annotation file") -> list[Path]:
        """Find files: `a | b` is the first that exists, `*` matches several, spaces match underscores, too.

        `what` names them in messages. UserError if there is none, or one lies outside the root, see `check_inside`; a
        `dataset.yaml` outside the root, which is the user's, may have files in its folder or absolute paths.
        """
        choices = [choice.strip() for choice in path.split("|")]
        is_outside = not self.folder.resolve().is_relative_to(self.root.resolve())
        spellings = [spelled for choice in choices for spelled in (choice, choice.replace(" ", "_"))]
        for pattern in [place / spelled for place in (self.folder, self.root) for spelled in spellings]:
            found = sorted(pattern.parent.glob(pattern.name)) if "*" in pattern.name else [pattern]
            if files := [file for file in found if file.is_file()]:
                for file in files:
                    if not is_outside or file.is_relative_to(self.root):
                        check_inside(file, self.root, what, self.follow_links)
                return files
        pattern = self.root / choices[0]
        what += f" of data.dataset {self.folder.name!r} ('' reads class folders)" if is_outside else ""
        if "*" in pattern.name:
            raise UserError(f"{str(existing(pattern.parent, f'folder of {what}'))!r} has no file like {pattern.name!r}")
        raise UserError(f"{what} {str(existing(pattern, what))!r} is not a file")


def check_inside(file: Path, root: Path, what: str, follow_links: bool = True) -> Path:
    """Return an existing file; UserError unless it lies in the root or, with `follow_links`, in its hub repository.

    A snapshot has links to blobs: `datasets--<name>/snapshots/<revision>/train.csv -> ../../blobs/<hash>`.
    """
    bound = root.resolve()
    existing(file, what)
    if follow_links:
        bound = next((each for each in bound.parents if each.name.startswith(("datasets--", "models--"))), bound)
    if not file.resolve().is_relative_to(bound):
        allowed = "files in it; a dataset.yaml outside data.root may name others by absolute paths, or lie beside them"
        raise UserError(f"{what} {str(file)!r} lies outside {str(root)!r}; allowed: {allowed}")
    return file


class _Folder:
    """Names in one folder, which is listed once."""

    def __init__(self, path: str, names: Iterable[str]) -> None:
        self.path = path
        self.names = frozenset(names)

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {normalize("NFC", name): name for name in self.names if not name.isascii()}

    @cached_property
    def _stems(self) -> dict[str, str]:
        """Video by its composed name without the ending: the first in the table of endings, lower case first."""
        found: dict[str, tuple[int, bool, str]] = {}
        for name in self.names:
            stem, dot, suffix = name.rpartition(".")
            rank = _RANKS.get(suffix.lower())
            if dot and rank is not None:
                stem = normalize("NFC", stem)
                found[stem] = min(found.get(stem, (len(_RANKS), True, "")), (rank, not suffix.islower(), name))
        return {stem: name for stem, (_, _, name) in found.items()}

    def find(self, name: str, any_ending: bool = False) -> str | None:
        """Return the equal name, or one of other composed accents; a video for `name.*` or a name without ending."""
        if name.endswith(".*"):
            return self._stems.get(normalize("NFC", name[:-2]))
        if name in self.names:
            return name
        composed = normalize("NFC", name)
        return self._composed.get(composed) or (self._stems.get(composed) if any_ending else None)


class VideoFinder:
    """Finds videos by name patterns, tried in order in each of a few folders.

    Names that differ from those of the files are found by one rule, and counted: accents may be composed or not, and
    paths of annotations may lack the ending or have `\\` for `/`.
    """

    def __init__(
        self, root: Path, folders: Sequence[str], patterns: Sequence[str], replacements: Sequence[str]
    ) -> None:
        """Search `folders` relative to `root`, after those of `replacements`."""
        self._root = root
        self._listed: dict[str, _Folder] = {}
        self._spellings: dict[str, list[_Folder]] = {}
        self.respelled: dict[str, str] = {}
        """File of each path of the annotation that differs."""
        self._folders = (*replacements, *folders)
        self._beginnings = [join(folder, "") for folder in self._folders]
        self._first_folder = folders[0]
        self.patterns = tuple(patterns)
        places = [(number, join(each, pattern)) for each in self._folders for number, pattern in enumerate(patterns)]
        self._places = [(number, place) for number, place in places if self._can_match(place)]
        self._hits = [0] * len(patterns)
        self.fields = frozenset[str]().union(*map(pattern_fields, patterns))

    def find(self, fields: Fields) -> str | None:
        """Return the path relative to the root, or None if no pattern matches a file.

        Folders also match with underscores for spaces and without `'`, `(` and `)`, as torchvision's Kinetics has.
        """
        for number, pattern in self._places:
            path = pattern.format_map(fields)
            if not is_relative(path):  # "." and "." side by side, or an alias
                continue
            folder, _, name = path.rpartition("/")
            for there in self._spelled(folder):
                found = there.find(name)
                if found is not None:
                    self._hits[number] += 1
                    if not found.isascii() and not found.startswith(name.removesuffix("*")):
                        self.respelled[name] = found
                    return join(there.path, found)
        return None

    def place(self, path: str, written: str = "") -> str:
        """Locate a path in the folders, or else in the first; `written` is it before its separators were changed."""
        for any_ending in (False, True):
            for beginning in self._beginnings:
                expected = beginning + path
                parent, _, name = expected.rpartition("/")
                there = self._listed.get(parent) or self._list(parent)
                found = there.find(name, any_ending)
                if found is not None:
                    located = join(there.path, found)
                    if written or located != expected:
                        self.respelled[written or path] = located
                    return located
        return join(self._first_folder, path)

    def _list(self, folder: str) -> _Folder:
        """List a folder, also if its accents are composed otherwise; no names if there is none."""
        if folder not in self._listed:
            path = folder
            if not folder.isascii() and not os.path.isdir(self._root / folder):
                path = ""
                for part in folder.split("/"):
                    found = self._list(path).find(part)
                    if found is None:
                        path = folder
                        break
                    path = join(path, found)
            names = os.listdir(self._root / path) if os.path.isdir(self._root / path) else ()
            self._listed[folder] = _Folder(path, names)
        return self._listed[folder]

    def _spelled(self, folder: str) -> list[_Folder]:
        """Return the existing spellings of a folder, with their names."""
        spellings = self._spellings.get(folder)
        if spellings is None:
            parent, _, last = folder.rpartition("/")
            joined = last.replace(" ", "_")
            each_once = dict.fromkeys(join(parent, each) for each in (last, joined, re.sub("['()]", "", joined)))
            spellings = self._spellings[folder] = [self._list(each) for each in each_once if self._list(each).names]
        return spellings

    def _can_match(self, pattern: str) -> bool:
        """Return False if the folder has no file of this kind and no folders that the pattern could name."""
        folder, _, name = pattern.rpartition("/")
        if "{" in folder:
            return bool(self._list(folder[: folder.index("{")].rpartition("/")[0]).names)
        suffixes = VIDEO_SUFFIXES if name.endswith(".*") else (name[name.rfind("}") + 1 :].lower(),)
        return any(found.lower().endswith(suffixes) for found in self._list(folder).names)

    def expected_pattern(self, needs: str | None = None) -> str:
        """Return the place of missing videos: first folder, and most used pattern (of those with the field `needs`)."""
        numbers = [i for i, p in enumerate(self.patterns) if needs is None or needs in pattern_fields(p)]
        number = max(numbers or range(len(self.patterns)), key=self._hits.__getitem__)
        pattern = join(self._first_folder, self.patterns[number])
        return pattern[:-2] + VIDEO_SUFFIXES[0] if pattern.endswith(".*") else pattern


def join(folder: str, name: str) -> str:
    """Join two relative paths; the folder `.` disappears."""
    return name if folder in ("", ".") else f"{folder.rstrip('/')}/{name}"


def pattern_fields(pattern: str) -> set[str]:
    """Return the names in braces; ValueError for other fields than `{name}`, `{name:06d}` and `{name*10:06d}`."""
    fields = [field for field in Formatter().parse(pattern) if field[1] is not None]
    for _, name, width, conversion in fields:
        if conversion or not _FIELD.fullmatch(f"{name}:{width}"):
            raise ValueError(f"field {name!r}; allowed: {{name}}, and {{name:06d}} with up to 20 digits")
    return {str(name) for _, name, _, _ in fields}


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Convert a name pattern to an expression for the end of a path; `{label}` takes as much as it can, others least.

    Each field is a group, except for `{other}`, and has one value; a suffix `.*` is any suffix, or none for folders.
    """
    text, seen = "(?:.*/)?", {"other"}
    for literal, name, _, _ in Formatter().parse(pattern.removesuffix(".*")):
        text += re.escape(literal)
        if name is not None:
            value = "[^/]+" if name == "label" else "[^/]+?"
            text += value if name == "other" else f"(?P={name})" if name in seen else f"(?P<{name}>{value})"
            seen.add(name)
    return re.compile(text + (r"(?:\.\w+)?" if pattern.endswith(".*") else ""))
