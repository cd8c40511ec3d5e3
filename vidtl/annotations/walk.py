"""Walk down folders of videos, through links."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from vidtl.errors import UserError
from vidtl.video.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

Kind = Literal["video", "image", "frames"]
"""A file with a container, a single image, or a folder of numbered images."""


class VideoWalk:
    """Iterable of path and kind of the videos in a folder and below it that are not hidden.

    Names are in order, files before folders. Images alone are the frames of one video; images beside videos, such as
    covers, are ignored. Links are followed, and each real folder is read once. Links to a folder above themselves,
    `folder` or `root` are ignored, lest a circle or a link to `/` run away; so are those into `folder`, unless hidden.
    """

    def __init__(
        self, folder: Path, root: Path, is_single: Callable[[str], bool], is_video: Callable[[str], bool] | None = None
    ) -> None:
        """Start at `folder`, to which paths are relative, in `root`.

        `is_single` is True if each image in a folder (its path) is a video of its own, `is_video` if a file with an
        unknown ending is one. Without it, none is, and a folder that cannot be listed is no longer ignored: OSError.
        """
        self.ignored: list[str] = []
        """Paths that were found and not read."""
        self._folder, self._is_single, self._is_video = folder, is_single, is_video
        real, real_root = folder.resolve(), root.resolve()
        if real in real_root.parents:
            raise UserError(f"{str(folder)!r} is a link to a folder above {str(root)!r}; allowed: a folder of videos")
        self._closed = {str(each) for place in (real, real_root) for each in (place, *place.parents)}
        self._start = str(real)

    def __iter__(self) -> Iterator[tuple[str, Kind]]:
        seen: set[str] = set()
        todo = [("", self._start)]
        while todo:
            path, real = todo.pop()
            try:
                entries = [] if real in seen else sorted(os.scandir(self._folder / path), key=lambda each: each.name)
            except OSError:
                if self._is_video is None:
                    raise
                entries = []
            if not entries:
                self.ignored.append(path)
            seen.add(real)
            found = [(entry, self._kind(entry, real)) for entry in entries if entry.name[0] != "."]
            kinds = {kind for _, kind in found}
            are_frames, are_covers = "image" in kinds and not self._is_single(path), "video" in kinds
            if are_frames and not are_covers:
                yield path, "frames"
            folders: list[tuple[str, str]] = []
            for entry, kind in found:
                name = f"{path}/{entry.name}" if path else entry.name
                if kind == "folder":
                    inside = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
                    folders.append((name, inside))
                elif kind is None or (kind == "image" and are_frames and are_covers):
                    self.ignored.append(name)
                elif kind == "video" or not are_frames:
                    yield name, kind
            todo += reversed(folders)

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
