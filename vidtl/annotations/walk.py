"""Walk through folders of videos, along links and without circles."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from vidtl.errors import UserError
from vidtl.video.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

Kind = Literal["video", "image", "frames"]
"""A file with a container, a single image, or a folder of numbered images."""


class VideoWalk:
    """Iterable of path and kind of the videos in a folder and below it that are not hidden, in the order of the names.

    Images alone are the frames of one video; images beside videos, such as covers, are ignored. Links are followed, and
    each real folder is read once. Links to a folder above themselves, `folder` or `root` are ignored, so that neither a
    circle nor a link to `/` runs away; those into `folder` as well, unless hidden there.
    """

    def __init__(
        self, folder: Path, root: Path, is_single: Callable[[str], bool], is_video: Callable[[str], bool] | None = None
    ) -> None:
        """Start at `folder`, to which paths are relative, in `root`.

        `is_single` is True if each image in a folder (its path) is a video of its own, `is_video` if a file with an
        unknown ending is one. Without `is_video`, none is, and a folder that cannot be listed is an OSError; with it,
        such a folder is ignored, and files come before folders.
        """
        self.ignored: list[str] = []
        """Paths that were found and not read."""
        self._folder, self._is_single, self._is_video = folder, is_single, is_video
        real, real_root = folder.resolve(), root.resolve()
        if real in real_root.parents:
            raise UserError(f"{str(folder)!r} is a link to a folder above {str(root)!r}; allowed: a folder of videos")
        self._closed = {str(each) for place in (real, real_root) for each in (place, *place.parents)}
        self._start = str(real)
        self._seen: set[str] = set()

    def __iter__(self) -> Iterator[tuple[str, Kind]]:
        todo = [self._contents("", self._start)]
        while todo:
            for path, kind, real in todo[-1]:
                if kind == "folder":
                    todo.append(self._contents(path, real))
                    break
                if kind is None:
                    self.ignored.append(path)
                else:
                    yield path, kind
            else:
                todo.pop()

    def _contents(self, path: str, real: str) -> Iterator[tuple[str, Kind | Literal["folder"] | None, str]]:
        """Yield path, kind (None: ignored) and real path of what is in a folder."""
        try:
            entries = [] if real in self._seen else sorted(os.scandir(self._folder / path), key=lambda each: each.name)
        except OSError:
            if self._is_video is None:
                raise
            entries = []
        if not entries:
            yield path, None, real
        self._seen.add(real)
        found = [(entry, self._kind(entry, real)) for entry in entries if entry.name[0] != "."]
        if self._is_video:
            found.sort(key=lambda each: each[1] == "folder")
        kinds = {kind for _, kind in found}
        are_frames, are_covers = "image" in kinds and not self._is_single(path), "video" in kinds
        if are_frames and not are_covers:
            yield path, "frames", real
        for entry, kind in found:
            name = f"{path}/{entry.name}" if path else entry.name
            if kind == "folder":
                yield name, kind, os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
            elif kind != "image" or are_covers or not are_frames:
                yield name, None if kind == "image" and are_frames else kind, ""

    def _kind(self, entry: "os.DirEntry[str]", place: str) -> Literal["video", "image", "folder"] | None:
        name = entry.name.lower()
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        if name.endswith(IMAGE_SUFFIXES):  # before links, whose kind takes a system call
            return "image"
        if name.endswith(VIDEO_SUFFIXES):
            return "video"
        if entry.is_symlink() and os.path.isdir(entry.path):
            target, start = os.path.realpath(entry.path), f"{self._start}/"
            comes_anyway = target.startswith(start) and "/." not in target[len(start) - 1 :]
            leads_back = target in self._closed or place.startswith(f"{target}/") or comes_anyway
            return None if leads_back else "folder"
        return "video" if self._is_video and self._is_video(entry.path) else None
