"""Find annotation files, and videos in folders and in the usual layouts of a data set.

Each folder is listed once, since on a network file system one system call per video takes minutes for 300,000 of them.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Literal, NamedTuple

from vidtl.config.checks import require
from vidtl.errors import UserError, did_you_mean
from vidtl.video.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

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


class AnnotationPlaces(NamedTuple):
    """Folders that are searched for annotation files and class lists: the root, then that of `dataset.yaml`."""

    root: Path
    folder: Path
    follow_links: bool = True

    def find(self, path: str, what: str = "annotation file") -> list[Path]:
        """Find files: `a | b` is the first that exists, `*` matches several, spaces match underscores, too.

        `what` names them in messages. UserError if there is none, or one lies outside the root, see `check_inside`; a
        `dataset.yaml` outside the root, which is the user's, may have files in its folder or absolute paths.
        """
        choices = [choice.strip() for choice in path.split("|")]
        is_users = not self.folder.resolve().is_relative_to(self.root.resolve())
        for place in (self.root, self.folder):
            for choice in choices:
                for pattern in (place / choice, place / choice.replace(" ", "_")):
                    found = sorted(pattern.parent.glob(pattern.name)) if "*" in pattern.name else [pattern]
                    if files := [file for file in found if file.is_file()]:
                        for file in files:
                            if not is_users or file.is_relative_to(self.root):
                                check_inside(file, self.root, what, self.follow_links)
                        return files
        pattern = self.root / choices[0]
        if "*" in pattern.name:
            folder = existing(pattern.parent, f"folder of the {what}")
            raise UserError(f"{str(folder)!r} has no file like {pattern.name!r}")
        raise UserError(f"{what} {str(existing(pattern, what))!r} is not a file")


def check_inside(file: Path, root: Path, what: str, follow_links: bool = True) -> Path:
    """Return the file; UserError unless its real path lies in the root, or with `follow_links` in its hub repository.

    A snapshot has links to blobs: `datasets--<name>/snapshots/<revision>/train.csv -> ../../blobs/<hash>`.
    """
    bound = root.resolve()
    if follow_links:
        bound = next((each for each in bound.parents if each.name.startswith(("datasets--", "models--"))), bound)
    if not file.resolve().is_relative_to(bound):
        allowed = "files in it; a dataset.yaml outside it may name others by absolute paths, or have them in its folder"
        raise UserError(f"{what} {str(file)!r} lies outside data.root {str(root)!r}; allowed: {allowed}")
    return file


Kind = Literal["video", "image", "frames"]
"""A file with a container, a single image, or a folder of numbered images."""
_Found = tuple[str, Kind | Literal["folder"] | None, str]
"""Name or path, kind (None: not to be read), and real path of a file or folder."""


def walk_videos(
    folder: Path,
    root: Path,
    ignored: list[str],
    is_single: Callable[[str], bool],
    is_video: Callable[[str], bool] | None = None,
) -> Iterator[tuple[str, Kind]]:
    """Yield path and kind of every video in a folder and below it, in the order of the names, without hidden ones.

    Images alone are the frames of one video; images beside videos, such as covers, are ignored.

    Links are followed, and each real folder is read once. Links to a folder above themselves, `folder` or `root` are
    ignored, so that neither a circle nor a link to `/` runs away; those into `folder` as well, unless hidden there.

    Args:
        folder: start; paths are relative to it.
        root: a folder that contains it.
        ignored: paths that are not read are added.
        is_single: True if each image in a folder (its path) is a video of its own.
        is_video: True if a file with an unknown ending is a video. None: none is, and a folder that cannot be listed
            is an OSError instead of ignored.
    """
    start, real_root = folder.resolve(), root.resolve()
    if start in real_root.parents:
        raise UserError(f"{str(folder)!r} is a link to a folder above {str(root)!r}; allowed: a folder of videos")
    closed = frozenset(str(each) for place in (start, real_root) for each in (place, *place.parents))
    seen: set[str] = set()
    todo: list[_Found] = [("", "folder", str(start))]
    while todo:
        path, kind, real = todo.pop()
        if kind is None or real in seen:
            ignored.append(path)
        elif kind != "folder":
            yield path, kind
        else:
            seen.add(real)
            found = _contents(folder / path, real, closed, f"{start}/", is_video)
            kinds = {kind for _, kind, _ in found}
            are_frames, are_covers = "image" in kinds and not is_single(path), "video" in kinds
            if are_frames and not are_covers:
                yield path, "frames"
            for name, kind, real in reversed(found):
                if kind != "image" or not are_frames or are_covers:
                    place = f"{path}/{name}" if path else name
                    todo.append((place, None if kind == "image" and are_frames else kind, real))


def _contents(
    place: Path, real: str, closed: frozenset[str], start: str, is_video: Callable[[str], bool] | None
) -> list[_Found]:
    """Return everything in a folder, in the order of the names."""
    try:
        entries = sorted((e for e in os.scandir(place) if e.name[0] != "."), key=lambda entry: entry.name)
    except OSError:
        if is_video is None:
            raise
        return [(".", None, real)]
    found: list[_Found] = []
    for entry in entries:
        name, lower, target = entry.name, entry.name.lower(), f"{real}/{entry.name}"
        kind: Kind | Literal["folder"] | None = None
        # Names come first, since `is_dir` of a link takes a system call.
        if entry.is_dir(follow_symlinks=False):
            kind = "folder"
        elif lower.endswith(IMAGE_SUFFIXES):
            kind = "image"
        elif lower.endswith(VIDEO_SUFFIXES):
            kind = "video"
        elif entry.is_symlink() and os.path.isdir(entry.path):
            target = os.path.realpath(entry.path)
            leads_back = target in closed or f"{real}/".startswith(f"{target}/")
            comes_anyway = target.startswith(start) and "/." not in target[len(start) - 1 :]
            kind = None if leads_back or comes_anyway else "folder"
        elif is_video and is_video(entry.path):
            kind = "video"
        found.append((name, kind, target))
    return found


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
