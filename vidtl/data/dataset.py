"""Records to clips: which frames, which box, decoded to uint8.

Every random number of a clip comes from (seed, epoch, record, view), so that neither the number of workers nor the
place where a run was interrupted changes a clip, nor how many clips of its video are read with it.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vidtl.config import ExperimentConfig
from vidtl.data.augmentation import draw_augmentation
from vidtl.data.batch import ClipBatch, Failure, VideoViews, ViewsBatch
from vidtl.data.changes import Augmentation
from vidtl.data.clip_samplers import FRAME_RULES, FrameRule
from vidtl.data.manifest import file_stamp, find_manifest, open_record
from vidtl.data.protocols import Protocol, view_boxes, view_indices
from vidtl.data.records import Records
from vidtl.data.sampling import resample_indices, train_box
from vidtl.errors import UserError
from vidtl.runtime.seeding import generator
from vidtl.video import UnreadableVideo, VideoReader, View, clip_shape

# Last key of the random streams of a clip, so that they never meet.
_CLIP, _SUBSTITUTE = 0, 1

# Candidates in the place of an unreadable video: where so many files are missing, the others are, too.
_MOST_LOOKED_AT = 1000

_log = logging.getLogger(__name__)


class ClipKey(NamedTuple):
    """One video to train on: what the sampler hands to the dataset. It gives `augmentation.repeats` clips."""

    epoch: int
    record: int
    """Record number."""
    weight: float
    """1, or 0 for a video that only fills up a batch."""


class Clip(NamedTuple):
    """One decoded training clip, before it is batched."""

    pixels: np.ndarray
    colour: int
    targets: np.ndarray
    augmentation: Augmentation
    weight: float
    failures: list[Failure]


def available_frames(video: VideoReader, records: Records, index: int, target_fps: float) -> np.ndarray:
    """Frame numbers of the file that clips of a record may use, in order: int64 [M].

    These are the frames inside the record's segment, at the file's own rate or (`target_fps` > 0) as a player at that
    rate would show them.

    Raises:
        UnreadableVideo: the file ends before the segment starts.
    """
    start, end = records.segment_starts_s[index], records.segment_ends_s[index]
    frames = np.flatnonzero((video.times_s >= start) & (video.times_s < end))
    if len(frames) == 0:
        raise UnreadableVideo(
            video.path, f"no frame between {start:g} s and {end:g} s; it ends at {video.times_s[-1]:g} s"
        )
    if target_fps > 0:
        times_s = video.times_s[frames]
        frames = frames[resample_indices(times_s - times_s[0], target_fps)]
    return frames


def frame_times(video: VideoReader, frames: np.ndarray, target_fps: float) -> np.ndarray:
    """When the frames that `available_frames` gave are shown, in seconds from the first: float64 [M]."""
    if target_fps > 0:
        return np.arange(len(frames)) / target_fps
    times_s: np.ndarray = video.times_s[frames] - video.times_s[frames[0]]
    return times_s


class ClipDataset(Dataset[list[Clip]]):
    """Training clips by `ClipKey`; a video that cannot be read is replaced by another, and both are reported."""

    def __init__(self, records: Records, config: ExperimentConfig, frame_rule: FrameRule | None = None) -> None:
        """`frame_rule` chooses the frames of each clip; `clip.sampling` names it where none is given."""
        self.records = records
        self.config = config
        self.manifest = find_manifest(records.root, config.data.manifest)
        self.frame_rule = frame_rule or FRAME_RULES[config.clip.sampling]

    def __getitem__(self, key: ClipKey) -> list[Clip]:
        """Decode the `augmentation.repeats` clips of one video in one pass; failures are told with the first of them.

        A video that only fills up a batch has been asked for elsewhere: its failures are not told, and where nothing
        can be read in its place its clips are zeros.

        Raises:
            UserError: neither the video nor any of its substitutes, at most `data.max_substitutions`, could be read.
        """
        failures: list[Failure] = []
        due = chain([key.record], self._substitutes(key))
        for attempt, index in enumerate(islice(due, 1 + self.config.data.max_substitutions)):
            try:
                first, *others = self._read(key, index)
            except UnreadableVideo as error:
                failures.append(self._failure(index, attempt, error.reason))
            else:
                return [first._replace(failures=failures if key.weight else []), *others]
        if key.weight == 0:
            return [self._blank(key.record)] * self.config.augmentation.repeats
        tried = "; ".join(f"{failure.path}: {failure.reason}" for failure in failures)
        raise UserError(
            f"none of {len(failures)} videos tried for one clip could be read "
            f"(data.max_substitutions is {self.config.data.max_substitutions}): {tried}"
        )

    def _blank(self, index: int) -> Clip:
        shape = clip_shape(self.config.clip.num_frames, self.config.clip.frame_size, self.config.data.pixel_format)
        return Clip(
            pixels=np.zeros(shape, np.uint8),
            colour=0,
            targets=self.records.targets(index),
            augmentation=Augmentation(),
            weight=0.0,
            failures=[],
        )

    def _failure(self, index: int, attempt: int, reason: str) -> Failure:
        records = self.records
        classes = tuple(records.classes.names[number] for number in records.labels(index))
        return Failure(index, records.paths[index], reason, classes, attempt)

    def _substitutes(self, key: ClipKey) -> Iterator[int]:
        """Other records in random order, each once: up to 1,000 with the same labels, then up to 1,000 of the rest.

        The order is a function of the key alone. What is left out could not be read anyway, so that a manifest changes
        no clip.
        """
        records = self.records
        rng = generator(self.config.training.seed, key.epoch, key.record, 0, _SUBSTITUTE)
        alike = records.with_labels(records.labels(key.record))
        others = np.delete(np.arange(len(records)), alike)
        for candidates in (alike[alike != key.record], others):
            for index in rng.permutation(candidates)[:_MOST_LOOKED_AT].tolist():
                if self._may_be_readable(index):
                    yield index

    def _may_be_readable(self, index: int) -> bool:
        """False where the file is missing, or broken according to the manifest."""
        records = self.records
        if file_stamp(records.path(index)) is None:
            return False
        try:
            if self.manifest:
                self.manifest.consult(records.root, records.paths[index])
        except UnreadableVideo:
            return False
        return True

    def _read(self, key: ClipKey, index: int) -> list[Clip]:
        config, records = self.config, self.records
        streams = [
            generator(config.training.seed, key.epoch, index, view, _CLIP)
            for view in range(config.augmentation.repeats)
        ]
        with open_record(records, index, config.data.decoder, self.manifest) as video:
            frames = available_frames(video, records, index, config.clip.target_fps)
            times_s = frame_times(video, frames, config.clip.target_fps)
            views = [
                View(
                    frames[self.frame_rule(times_s, config.clip, rng)],
                    train_box(video.height, video.width, config.augmentation, config.clip, rng),
                )
                for rng in streams
            ]
            pixels = video.read(views, config.clip.frame_size, config.data.pixel_format)
            spans_s = [video.times_s[[view.indices.min(), view.indices.max()]] for view in views]
            colour = video.colour.code()
        return [
            Clip(
                pixels=pixels[view],
                colour=colour,
                targets=records.targets(index, *spans_s[view]) if records.multi_label else records.targets(index),
                augmentation=draw_augmentation(config.augmentation, config.clip.frame_size, streams[view]),
                weight=key.weight,
                failures=[],
            )
            for view in range(len(views))
        ]


class ViewDataset(Dataset[VideoViews]):
    """Evaluation views by record number; nothing random, nothing replaced."""

    def __init__(self, records: Records, config: ExperimentConfig, protocol: Protocol) -> None:
        self.records = records
        self.config = config
        self.manifest = find_manifest(records.root, config.data.manifest)
        self.protocol = protocol
        if not protocol.suits(config.clip):
            _log.warning(
                "evaluation.protocol %s takes %s of a video, but clip.sampling is %s; scores will suffer",
                protocol.name,
                protocol.frames,
                config.clip.sampling,
            )

    def __getitem__(self, index: int) -> VideoViews:
        """All views of one video from one pass over its file; a video that cannot be read says why."""
        config, records = self.config, self.records
        try:
            with open_record(records, index, config.data.decoder, self.manifest) as video:
                frames = available_frames(video, records, index, config.clip.target_fps)
                fps = config.clip.target_fps or video.fps
                clips = frames[view_indices(self.protocol, len(frames), config.clip, fps)]
                boxes = view_boxes(self.protocol, video.height, video.width, config.clip)
                views = [View(indices, box) for indices in clips for box in boxes]
                pixels = video.read(views, config.clip.frame_size, config.data.pixel_format)
                return VideoViews(
                    index=index,
                    pixels=torch.from_numpy(pixels),
                    colour=video.colour.code(),
                    failure=None,
                    num_frames=len(video.times_s),
                    duration_s=float(video.times_s[-1]) + 1 / video.fps,
                )
        except UnreadableVideo as error:
            failure = Failure(index, records.paths[index], error.reason)
            return VideoViews(index=index, pixels=None, colour=0, failure=failure)


def collate(videos: Sequence[Sequence[Clip]]) -> ClipBatch:
    """Clips of the videos of one micro-batch to tensors."""
    clips = [clip for video in videos for clip in video]
    return ClipBatch(
        pixels=torch.from_numpy(np.stack([clip.pixels for clip in clips])),
        colour=torch.tensor([clip.colour for clip in clips]),
        targets=torch.from_numpy(np.stack([clip.targets for clip in clips])),
        weights=torch.tensor([clip.weight for clip in clips], dtype=torch.float32),
        augmentation=[clip.augmentation for clip in clips],
        failures=[failure for clip in clips for failure in clip.failures],
    )


def collate_views(videos: Sequence[VideoViews]) -> ViewsBatch:
    """Videos of one protocol; those that could be read have views of one shape."""
    readable = [video.pixels for video in videos if video.pixels is not None]
    return ViewsBatch(
        videos=[replace(video, pixels=None) for video in videos],
        # A single one, which may be large, is not copied.
        pixels=None if not readable else readable[0][None] if len(readable) == 1 else torch.stack(readable),
    )


def check_readable(records: Records, config: ExperimentConfig, num_probes: int = 8) -> None:
    """Open a few videos spread over the records, so that a wrong root ends a run before it starts.

    Raises:
        UserError: none of them could be opened.
    """
    manifest = find_manifest(records.root, config.data.manifest)
    probes = np.unique(np.linspace(0, len(records) - 1, num_probes).astype(int))
    for index in probes:
        try:
            with open_record(records, int(index), config.data.decoder, manifest):
                return
        except UnreadableVideo as error:
            last = error
    raise UserError(
        f"data.root {str(records.root)!r}: none of {len(probes)} videos tried could be read "
        f"(annotated in {records.annotation}); the last one: {last}"
    )


def first_records(records: Records, count: int) -> Records:
    """The first `count` records, or all of them where `count` is 0."""
    return records.select(np.arange(min(count, len(records)))) if count else records
