"""Find annotation files, and videos in the usual layouts of a data set.

Each folder is listed once, since on a network file system one system call per video takes minutes for 300,000 of them.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

from vidtl.config.checks import require
from vidtl.errors import UserError, did_you_mean
from vidtl.video.suffixes import VIDEO_SUFFIXES

_UNSAFE = re.compile(r"^/|(^|/)\.\.(/|$)|://|[\0-\x1f\x7f]")

ANY_COLUMN = ("*",)
"""Allowed fields of name patterns that may use any column."""

Fields = Mapping[str, str | int]


def check_relative(path: str, where: str) -> str:
    """Return the path, or raise a UserError if its text (links are checked when opened) could leave its folder."""
    if not path or _UNSAFE.search(path):
        raise UserError(f"{where}: {path!r} is not allowed; a path inside data.root without '..' is")
    return path


def existing(path: Path, what: str) -> Path:
    """Return the path, or raise a UserError with its first missing part and the nearest name there."""
    if path.exists():
        return path
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    siblings = sorted(os.listdir(missing.parent)) if missing.parent.is_dir() else []
    hint = did_you_mean(missing.name, siblings) if siblings else "that folder is empty"
    raise UserError(f"{what} {str(path)!r} does not exist: {str(missing.parent)!r} has no {missing.name!r}; {hint}")


def find_annotations(root: Path, path: str, what: str = "annotation file") -> list[Path]:
    """Find files below the root: `a | b` is the first that exists, `*` matches several, spaces match underscores, too.

    `what` names them in messages.
    """
    choices = [choice.strip() for choice in path.split("|")]
    for choice in choices:
        for spelling in (choice, choice.replace(" ", "_")):
            folder, _, name = spelling.rpartition("/")
            found = sorted((root / folder).glob(name)) if "*" in name else [root / spelling]
            files = [file for file in found if file.is_file()]
            if files:
                return files
    folder, _, name = choices[0].rpartition("/")
    if "*" in name:
        raise UserError(f"{str(existing(root / folder, f'folder of the {what}'))!r} has no file like {name!r}")
    raise UserError(f"{what} {str(existing(root / choices[0], what))!r} is not a file")


class VideoFinder:
    """Finds videos by name patterns, tried in order in each of a few folders."""

    def __init__(
        self, root: Path, folders: Sequence[str], patterns: Sequence[str], replacements: Sequence[str]
    ) -> None:
        """Search `folders` relative to `root`, after those of `replacements`."""
        self._root = root
        self._names: dict[str, frozenset[str]] = {}
        self._spellings: dict[str, list[tuple[str, frozenset[str]]]] = {}
        self._folders = (*replacements, *folders)
        self._first_folder = folders[0]
        self.patterns = tuple(patterns)
        places = [
            (number, *join(folder, pattern).rpartition("/")[::2])
            for folder in self._folders
            for number, pattern in enumerate(patterns)
        ]
        self._places = [place for place in places if self._can_match(*place[1:])]
        self._hits = [0] * len(patterns)
        self.fields = frozenset[str]().union(*map(pattern_fields, patterns))

    def find(self, fields: Fields) -> str | None:
        """Return the path relative to the root, or None if no pattern matches a file.

        Folders also match with underscores for spaces and without `'`, `(` and `)`, as torchvision.datasets.Kinetics
        names class folders.
        """
        for number, folder_pattern, name_pattern in self._places:
            folder, name = folder_pattern.format_map(fields), name_pattern.format_map(fields)
            if "/" in name:
                inner, _, name = name.rpartition("/")
                folder = join(folder, inner)
            for spelling, names in self._spelled(folder):
                found = _first(name, names)
                if found is not None:
                    self._hits[number] += 1
                    return join(spelling, found)
        return None

    def name(self, fields: Fields) -> str:
        """Return the name of a video by the first pattern, without its suffix `.*`."""
        return self.patterns[0].format_map(fields).removesuffix(".*")

    def place(self, path: str) -> str:
        """Locate a path of an annotation in the folders; if it is in none, return that in the first folder."""
        if len(self._folders) > 1:
            for folder in self._folders:
                parent, _, name = join(folder, path).rpartition("/")
                if name in self._list(parent):
                    return join(folder, path)
        return join(self._first_folder, path)

    def _list(self, folder: str) -> frozenset[str]:
        """Return the names in a folder (files and folders); empty if there is no such folder."""
        if folder not in self._names:
            path = self._root / folder
            self._names[folder] = frozenset(os.listdir(path)) if path.is_dir() else frozenset()
        return self._names[folder]

    def _spelled(self, folder: str) -> list[tuple[str, frozenset[str]]]:
        """Return the existing spellings of a folder, with their names."""
        spellings = self._spellings.get(folder)
        if spellings is None:
            parent, _, last = folder.rpartition("/")
            joined = last.replace(" ", "_")
            each_once = dict.fromkeys(join(parent, each) for each in (last, joined, re.sub("['()]", "", joined)))
            spellings = self._spellings[folder] = [(each, self._list(each)) for each in each_once if self._list(each)]
        return spellings

    def _can_match(self, folder: str, name: str) -> bool:
        """Return False if the folder has no file of this kind and no folders that the pattern could name."""
        if "{" in folder:
            return bool(self._list(folder[: folder.index("{")].rpartition("/")[0]))
        suffixes = VIDEO_SUFFIXES if name.endswith(".*") else (name[name.rfind("}") + 1 :],)
        return any(found.endswith(suffixes) for found in self._list(folder))

    def expected_pattern(self, needs: str | None = None) -> str:
        """Return the expected place of missing videos: the first folder, and the pattern that most videos matched.

        With `needs`, only patterns with that field count (or all, if none has it).
        """
        numbers = [i for i, p in enumerate(self.patterns) if needs is None or needs in pattern_fields(p)]
        number = max(numbers or range(len(self.patterns)), key=self._hits.__getitem__)
        pattern = join(self._first_folder, self.patterns[number])
        return pattern[:-2] + VIDEO_SUFFIXES[0] if pattern.endswith(".*") else pattern


def join(folder: str, name: str) -> str:
    """Join two relative paths; the folder `.` disappears."""
    return name if folder in ("", ".") else f"{folder.rstrip('/')}/{name}"


def pattern_fields(pattern: str) -> set[str]:
    """Return the names in braces; ValueError for invalid format syntax."""
    return {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}


def column_of(field: str) -> str:
    """Return the column of a field of a name pattern: `start` of `{start*10:06d}`."""
    return field.partition("*")[0]


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """Convert a name pattern to an expression for the end of a path; `{label}` takes as much as it can, others least.

    Each field is a group, except for `{other}`; a suffix `.*` is any suffix, or none for folders.
    """
    parts: list[str] = []
    for literal, name, _, _ in Formatter().parse(pattern.removesuffix(".*")):
        parts.append(re.escape(literal))
        if name is not None:
            parts.append("[^/]+?" if name == "other" else f"(?P<{name}>[^/]+{'' if name == 'label' else '?'})")
    return re.compile(f"(?:.*/)?{''.join(parts)}" + (r"(?:\.\w+)?" if pattern.endswith(".*") else ""))


def check_patterns(patterns: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Apply the name patterns of a data set once, so that none can fail in the middle of it.

    `allowed` are the fields; none if there may be no patterns, `ANY_COLUMN` if there may be any.
    """
    if allowed != ANY_COLUMN:
        needed = "patterns such as '{id}.mp4'" if allowed else "none with this format, whose annotation has the paths"
        require(bool(patterns) == bool(allowed), "files", list(patterns), needed)
    elif patterns:
        require(
            any("{" in pattern for pattern in patterns), "files", list(patterns), "patterns such as '{id}.mp4', or none"
        )
    for pattern in patterns:
        try:
            fields = pattern_fields(pattern)
            unknown = [] if allowed == ANY_COLUMN else sorted(fields.difference(allowed))
            sample = {name: 0 if name in ("start", "end") or "*" in name else name for name in fields}
            example = pattern if unknown else pattern.format_map(sample)
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"files has {pattern!r}, which is no name pattern ({error})") from None
        if unknown:
            hint = did_you_mean(unknown[0], sorted(allowed))
            raise UserError(f"files has {pattern!r} with the unknown field {unknown[0]!r}; {hint}")
        check_relative(example, "files")


def _first(name: str, names: frozenset[str]) -> str | None:
    """Return the name if it is in `names`; for `stem.*`, the name with the first matching suffix."""
    if not name.endswith(".*"):
        return name if name in names else None
    return next((found for suffix in VIDEO_SUFFIXES if (found := name[:-2] + suffix) in names), None)
