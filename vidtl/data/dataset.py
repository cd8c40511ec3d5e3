"""Records to clips: choose frames and box, decode to uint8.

Every random number of a clip comes from (seed, epoch, record, view), whatever workers, interruptions and other clips.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from vidtl.annotations.records import Records
from vidtl.config import AugmentationConfig, ClipConfig, DataConfig
from vidtl.data.augmentation import Augmentation, draw_augmentation
from vidtl.data.background import Backgrounds
from vidtl.data.batch import ClipBatch, Failure, Read, VideoViews, ViewsBatch
from vidtl.data.manifest import Manifest, file_stamp, find_manifest
from vidtl.data.protocols import Protocol, view_boxes, view_indices
from vidtl.data.sampling import resample_indices, train_box, train_indices
from vidtl.data.workers import Reads
from vidtl.errors import UserError
from vidtl.runtime.seeding import generator
from vidtl.video import UnreadableVideo, VideoReader, View, open_video
from vidtl.video.reader import clip_shape

_CLIP, _SUBSTITUTE = 0, 1  # last key of the random streams of a clip, one per purpose

# Training: videos tried in place of an unreadable one before the run stops, without missing files; and candidates.
MAX_SUBSTITUTIONS = 10
_MAX_CANDIDATES = 1000

_log = logging.getLogger(__name__)


class ClipKey(NamedTuple):
    """Key of a training sample: one video, which gives `augmentation.repeats` clips."""

    epoch: int
    record: int
    weight: float
    """1, or 0 for a video that pads a batch."""
    visit: int = 0
    """Earlier visits of the video in this epoch, of `data.balance`."""


class Clip(NamedTuple):
    """One decoded training clip, before it is batched."""

    pixels: np.ndarray
    color: int
    targets: np.ndarray
    augmentation: Augmentation
    weight: float
    failures: list[Failure]


def open_record(records: Records, index: int, data: DataConfig, manifest: Manifest | None) -> VideoReader:
    """Open the video of a record with its entry in the manifest; see `open_video`."""
    scanned = manifest.consult(records.root, records.paths[index]) if manifest else None
    root = None if data.follow_links else records.root
    return open_video(records.path(index), data.decoder, root, records.frame_rate, scanned)


def available_frames(video: VideoReader, records: Records, index: int, target_fps: float) -> np.ndarray:
    """Return the frames of the segment: int64 [M], resampled to `target_fps` if above 0; UnreadableVideo for none."""
    start, end = records.segment_starts_s[index], records.segment_ends_s[index]
    frames = np.arange(*np.searchsorted(video.times_s, [start, end]))
    if len(frames) == 0:
        first, last = video.times_s[[0, -1]]
        reason = f"no frame between {start:g} s and {end:g} s; its frames are shown from {first:g} s to {last:g} s"
        raise UnreadableVideo(video.path, reason)
    if target_fps > 0:
        times_s = video.times_s[frames]
        frames = frames[resample_indices(times_s - times_s[0], target_fps)]
    return frames


class ClipDataset(Dataset[list[Clip]]):
    """Training clips by `ClipKey`; a video that cannot be read is replaced by another, and both are reported."""

    def __init__(
        self, records: Records, data: DataConfig, clip: ClipConfig, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.records, self.data, self.clip = records, data, clip
        self.augmentation, self.seed = augmentation, seed
        self.backgrounds = Backgrounds(clip, data)
        self.manifest, self.reads = find_manifest(records.root, data.manifest), Reads(data)

    def __getitem__(self, key: ClipKey) -> list[Clip]:
        """Decode the `augmentation.repeats` clips of one video in one pass; the first of them carries the failures.

        A video that pads a batch reports none, and its clips are zeros if no substitute can be read. UserError if
        neither the video nor any of its substitutes, at most `MAX_SUBSTITUTIONS`, can be read.
        """
        failures: list[Failure] = []
        candidates = chain([key.record], self._substitutes(key))
        for attempt, index in enumerate(islice(candidates, 1 + MAX_SUBSTITUTIONS)):
            read = Read(key.epoch, key.record, index)
            try:
                with self.reads.limited(read, self.records.path(index)):
                    first, *others = self._read(key, index)
            except UnreadableVideo as error:
                classes = tuple(self.records.classes.names[number] for number in self.records.labels(index))
                given_up = read if read in self.reads.given_up else None
                failures.append(Failure(index, self.records.paths[index], error.reason, classes, attempt, given_up))
            else:
                return [first._replace(failures=failures if key.weight else []), *others]
        if key.weight == 0:
            shape = clip_shape(self.clip.input_frames, self.clip.frame_size, self.data.pixel_format)
            blank = Clip(np.zeros(shape, np.uint8), 0, self.records.targets(key.record), Augmentation(), 0.0, [])
            return [blank] * self.augmentation.repeats
        tried = "; ".join(f"{failure.path}: {failure.reason}" for failure in failures)
        raise UserError(f"none of {len(failures)} videos tried for one clip could be read: {tried}")

    def _read(self, key: ClipKey, index: int) -> list[Clip]:
        """Choose frames and box of each clip, decode all in one pass, and label each by its own span."""
        clip, records, repeats = self.clip, self.records, self.augmentation.repeats
        numbers = range(key.visit * repeats, (key.visit + 1) * repeats)
        streams = [generator(self.seed, key.epoch, index, number, _CLIP) for number in numbers]
        with open_record(records, index, self.data, self.manifest) as video:
            frames = available_frames(video, records, index, clip.target_fps)
            views = []
            for rng in streams:
                indices = frames[train_indices(len(frames), clip, rng)]
                views.append(View(indices, train_box(video.height, video.width, self.augmentation, clip, rng)))
            form = clip.frame_size, self.data.pixel_format
            pixels = self.backgrounds.append(records.paths[index], video, video.read, views, *form)
            spans_s = [video.times_s[[view.indices.min(), view.indices.max()]] for view in views]
            color = video.color.code()
        changes = [draw_augmentation(self.augmentation, clip.frame_size, rng) for rng in streams]
        return [
            Clip(pixels[view], color, records.targets(index, *spans_s[view]), changes[view], key.weight, [])
            for view in range(repeats)
        ]

    def _substitutes(self, key: ClipKey) -> Iterator[int]:
        """Yield other records, by the key alone, whose files exist: up to 1,000 with the same labels, then others."""
        records = self.records
        rng = generator(self.seed, key.epoch, key.record, 0, _SUBSTITUTE)
        alike = records.with_labels(records.labels(key.record))
        others = np.delete(np.arange(len(records)), alike)
        for candidates in (alike[alike != key.record], others):
            for index in rng.permutation(candidates)[:_MAX_CANDIDATES].tolist():
                if file_stamp(records.path(index)) is not None:
                    yield index


class ViewDataset(Dataset[VideoViews]):
    """Evaluation views by record number; a video that cannot be read gives a reason instead of pixels.

    A file stays open until another one is due, and successive records of it, such as windows of a long video, are
    decoded in one pass if their clips lie in order: each frame once.
    """

    def __init__(
        self,
        records: Records,
        protocol: Protocol,
        clip: ClipConfig,
        data: DataConfig,
        order: Sequence[int] | None = None,
        failures: Mapping[int, str] | None = None,
    ) -> None:
        """Plan to read records in an `order`, all by default; those in `failures` are not opened."""
        self.records, self.protocol, self.clip, self.data = records, protocol, clip, data
        self.manifest, self.reads = find_manifest(records.root, data.manifest), Reads(data)
        self.reads.given_up.update({Read(0, index, index): reason for index, reason in (failures or {}).items()})
        self.backgrounds = Backgrounds(clip, data)
        self.order = np.arange(len(records)) if order is None else np.asarray(order, np.int64)
        self._file: tuple[str, VideoReader] | None = None
        self._due: deque[int] = deque()
        self._clips: Iterator[np.ndarray] = iter(())
        if not protocol.suits(clip):
            message = "evaluation.protocol %s takes %s of a video, but clip.sampling is %s; scores will suffer"
            _log.warning(message, protocol.name, protocol.frames, clip.sampling)

    def __getitems__(self, indices: list[int]) -> list[VideoViews]:
        """Decode all views of some videos, each in one pass; a DataLoader calls this instead of `__getitem__`."""
        return [self._read(index, indices[place:]) for place, index in enumerate(indices)]

    def _read(self, index: int, batch: Sequence[int]) -> VideoViews:
        records = self.records
        try:
            with self.reads.limited(Read(0, index, index), records.path(index)):
                video = self._opened(index)
                views = self._views(video, index)
                clips = self.backgrounds.append(records.paths[index], video, self._pixels, video, index, views, batch)
                return VideoViews(
                    index=index,
                    pixels=torch.from_numpy(clips),
                    color=video.color.code(),
                    failure=None,
                    frames=np.stack([view.indices for view in views]),
                    num_frames=len(video.times_s),
                    duration_s=video.duration_s,
                )
        except UnreadableVideo as error:
            self._due.clear()
            failure = Failure(index, records.paths[index], error.reason)
            return VideoViews(index=index, pixels=None, color=0, failure=failure)

    def _views(self, video: VideoReader, index: int) -> list[View]:
        frames = available_frames(video, self.records, index, self.clip.target_fps)
        indices = frames[view_indices(self.protocol, len(frames), self.clip, self.clip.target_fps or video.fps)]
        boxes = view_boxes(self.protocol, video.height, video.width, self.clip)
        return [View(of_clip, box) for of_clip in indices for box in boxes]

    def _pixels(self, video: VideoReader, index: int, views: list[View], batch: Sequence[int]) -> np.ndarray:
        """Read on where a pass over this file leads to the record; else begin one, if the next record is of it."""
        size, pixel_format = self.clip.frame_size, self.data.pixel_format
        if index not in self._due:
            run = self._run(video, index, views, batch)
            if len(run) == 1:
                self._due.clear()
                return video.read(views, size, pixel_format)
            self._due = deque(run)
            self._clips = video.read_each(list(run.values()), size, pixel_format)
        while self._due.popleft() != index:
            next(self._clips)
        return next(self._clips)[None]

    def _run(self, video: VideoReader, index: int, views: list[View], batch: Sequence[int]) -> dict[int, View]:
        """Find the records of the file that follow and have one clip each, in order: their views, from `index` on."""
        run = {index: views[0]}
        if len(views) > 1:
            return run
        # Several workers read batches in turn. Without seeking, the frames of the others' are decoded anyway.
        worker = get_worker_info()
        in_turn = video.seeks and worker is not None and worker.num_workers > 1
        following = batch[1:] if in_turn else self.order[np.flatnonzero(self.order == index)[0] + 1 :]
        for number in map(int, following):
            if self.records.paths[number] != self.records.paths[index]:
                break
            try:
                view, before = self._views(video, number)[0], run[next(reversed(run))]
            except UnreadableVideo:
                break
            if view.indices.min() < before.indices.min():
                break
            run[number] = view
        return run

    def _opened(self, index: int) -> VideoReader:
        path = self.records.paths[index]
        if self._file is None or self._file[0] != path:
            if self._file:
                self._file[1].close()
            self._file = None
            self._due.clear()
            self._file = path, open_record(self.records, index, self.data, self.manifest)
        return self._file[1]


def collate(videos: Sequence[Sequence[Clip]]) -> ClipBatch:
    """Stack the clips of one micro-batch into tensors."""
    clips = [clip for video in videos for clip in video]
    return ClipBatch(
        pixels=torch.from_numpy(np.stack([clip.pixels for clip in clips])),
        color=torch.tensor([clip.color for clip in clips]),
        targets=torch.from_numpy(np.stack([clip.targets for clip in clips])),
        weights=torch.tensor([clip.weight for clip in clips], dtype=torch.float32),
        augmentation=[clip.augmentation for clip in clips],
        failures=[failure for clip in clips for failure in clip.failures],
    )


def collate_views(videos: Sequence[VideoViews]) -> ViewsBatch:
    """Stack the views of readable videos, which have one shape under one protocol."""
    readable = [video.pixels for video in videos if video.pixels is not None]
    return ViewsBatch(
        videos=[replace(video, pixels=None) for video in videos],
        # A single video, which may be large, is not copied; several are stacked in shared memory. Stacked elsewhere and
        # moved there, large batches would fragment a worker's memory, which grows without end.
        pixels=None if not readable else readable[0][None] if len(readable) == 1 else default_collate(readable),
    )


def first_records(records: Records, count: int) -> Records:
    """Return the first `count` records, or all of them if `count` is 0."""
    return records.select(np.arange(min(count, len(records)))) if count else records
