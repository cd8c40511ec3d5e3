"""Batches in a global order that is a pure function of (seed, epoch).

Optimizer step s of an epoch takes places s·G to (s+1)·G of that epoch's permutation, for a global batch of G videos.
They are the `accumulation_steps` micro-batches one after another, and in each of them the processes one after another:
the clips of a step do not depend on the numbers of processes and accumulation steps, and a run resumes at any step
without decoding the earlier ones. The last step of an epoch is padded with clips of weight 0.

A place is a video with `augmentation.repeats` consecutive clips. With `data.balance`, a video may have none or several.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice, product

import numpy as np

from vidtl.annotations.records import Records
from vidtl.config import ClipConfig, DataConfig, ExperimentConfig
from vidtl.config.checks import require_each
from vidtl.data.augmentation import draw_mixing
from vidtl.data.batch import ClipBatch, Read, VideoViews
from vidtl.data.dataset import ClipDataset, ClipKey, ViewDataset, collate, collate_views
from vidtl.data.protocols import Protocol, get_protocol
from vidtl.data.workers import read_batches
from vidtl.errors import UserError
from vidtl.runtime.seeding import generator
from vidtl.video.reader import clip_shape

# Evaluation: limits of the videos that a worker sends at once, and the least number of its batches.
_BATCH_BYTES, _PASS_BYTES, _MAX_PER_BATCH, _BATCHES_PER_WORKER = 1 << 20, 1 << 25, 32, 8


def epoch_order(num_records: int, groups: np.ndarray | None, seed: int, epoch: int) -> np.ndarray:
    """Return the records that one epoch visits in turn, and their earlier visits in it: int64 [2, num_records].

    Without groups, it visits each record once. With the group of each record, int64 [num_records], it visits the groups
    equally often (to 1), and the records of a group (to 1).
    """
    rng = generator(seed, epoch)
    order = rng.permutation(num_records)
    if groups is None:
        return np.stack([order, np.zeros_like(order)])
    order = order[np.argsort(groups[order], kind="stable")]
    _, firsts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rounds, group = np.divmod(np.arange(num_records), len(sizes))
    group = rng.permutation(len(sizes))[group]
    visits, members = np.divmod(rounds, sizes[group])
    return np.stack([order[firsts[group] + members], visits])[:, rng.permutation(num_records)]


def rarest_labels(records: Records) -> np.ndarray:
    """Return the class of each record, of several the one with the fewest records: int64 [N]; K for no label."""
    videos, classes = records.distinct_labels()
    rarest_last = np.argsort(-np.bincount(classes)[classes], kind="stable")
    labels = np.full(len(records), len(records.classes))
    labels[videos[rarest_last]] = classes[rarest_last]
    return labels


class TrainLoader:
    """Training micro-batches of one process."""

    def __init__(self, records: Records, config: ExperimentConfig, process_index: int, num_processes: int) -> None:
        """Plan the batches of a run; UserError if a batch cannot be split evenly, or a single clip cannot be mixed."""
        training, augmentation = config.training, config.augmentation
        parts = num_processes * training.accumulation_steps * augmentation.repeats
        if training.batch_size % parts:
            factors = f"{training.accumulation_steps} accumulation steps x {augmentation.repeats} clips per video"
            allowed = f"multiples of {parts} ({num_processes} processes x {factors})"
            raise UserError(f"training.batch_size is {training.batch_size}; allowed: {allowed}")
        if not config.clip.short_side:
            require_each(augmentation, "augmentation", "crop", "center".__eq__, "center with clip.short_side 0")
        self.records, self.config = records, config
        self.process_index, self.num_processes = process_index, num_processes
        self.repeats = augmentation.repeats
        self.batch_size = training.batch_size
        self.videos_per_step = training.batch_size // augmentation.repeats
        self.videos_per_micro_batch = training.batch_size // parts
        self.accumulation_steps = training.accumulation_steps
        if self.videos_per_micro_batch == 1 and augmentation.mixes:
            allowed = f"{2 * parts} or more with augmentation.mixup_alpha or cutmix_alpha, which mix micro-batches"
            raise UserError(f"training.batch_size is {training.batch_size}; allowed: {allowed}")
        groups = rarest_labels(records) if config.data.balance == "sampling" else None
        # Near the end of an epoch, prefetching needs two orders in turn.
        self._order = lru_cache(maxsize=2)(partial(epoch_order, len(records), groups, training.seed))
        self.steps_per_epoch = -(-len(records) // self.videos_per_step)
        self.samples_per_epoch = len(records) * self.repeats
        self.total_steps = config.schedule.total_steps(self.steps_per_epoch, self.samples_per_epoch)

    def global_count(self, step: int) -> int:
        """Count the clips of weight 1 in one optimizer step, over all processes."""
        place = step % self.steps_per_epoch * self.videos_per_step
        return min(self.videos_per_step, len(self.records) - place) * self.repeats

    def places(self, start_step: int) -> Iterator[tuple[int, int]]:
        """Yield step and number of each micro-batch from a step to the end of the run."""
        return product(range(start_step, self.total_steps), range(self.accumulation_steps))

    def keys(self, step: int, micro_batch: int) -> list[ClipKey]:
        """Return this process's videos of one micro-batch."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order, visits = self._order(epoch)
        part = micro_batch * self.num_processes + self.process_index
        first = step_in_epoch * self.videos_per_step + part * self.videos_per_micro_batch
        places = range(first, first + self.videos_per_micro_batch)
        wrapped = [(place % len(order), float(place < len(order))) for place in places]
        return [ClipKey(epoch, int(order[place]), weight, int(visits[place])) for place, weight in wrapped]

    def clips_of_classes(self, steps: int) -> dict[str, int]:
        """Count the clips of each class's videos in the first `steps` optimizer steps, over all processes."""
        records = self.records
        epochs, rest = divmod(steps, self.steps_per_epoch)
        visits = np.bincount(self._order(epochs)[0][: rest * self.videos_per_step], minlength=len(records))
        if self.config.data.balance == "sampling":
            for epoch in range(epochs):
                visits += np.bincount(self._order(epoch)[0], minlength=len(records))
        else:
            visits += epochs  # each visits every video once
        videos, classes = records.distinct_labels()
        counts = np.bincount(classes, weights=visits[videos], minlength=len(records.classes)) * self.repeats
        return {name: int(count) for name, count in zip(records.classes.names, counts, strict=True) if count}

    def dataset(self) -> ClipDataset:
        """Open the clips of the records."""
        config = self.config
        return ClipDataset(self.records, config.data, config.clip, config.augmentation, config.training.seed)

    def iterate(self, start_step: int = 0, given_up: Mapping[Read, str] | None = None) -> Iterator[ClipBatch]:
        """Yield micro-batches from `start_step` to the end of the run, `accumulation_steps` for each step.

        Reads that an earlier attempt has `given_up` are not tried. UserError where no video for a clip can be read.
        """
        dataset, config = self.dataset(), self.config
        dataset.reads.given_up.update(given_up or {})

        def keys_after(done: int) -> Iterator[list[ClipKey]]:
            return (self.keys(*place) for place in islice(self.places(start_step), done, None))

        batch_bytes = self.videos_per_micro_batch * self.repeats * _clip_bytes(config.clip, config.data)
        with closing(read_batches(dataset, dataset.reads, keys_after, collate, batch_bytes)) as batches:
            for (step, micro_batch), batch in zip(self.places(start_step), batches, strict=True):
                position = (config.training.seed, step, micro_batch, self.process_index)
                weights = [key.weight for key in self.keys(step, micro_batch) for _ in range(self.repeats)]
                mixing = draw_mixing(config.augmentation, config.clip.frame_size, weights, *position)
                yield replace(batch, mixing=mixing)


class EvalLoader:
    """Evaluation views of the records `indices` (all by default), each once and in that order."""

    def __init__(
        self,
        records: Records,
        protocol: Protocol,
        clip: ClipConfig,
        data: DataConfig,
        indices: Sequence[int] | None = None,
        failures: Mapping[int, str] | None = None,
    ) -> None:
        """Plan the views; records in `failures` are not opened, and have these reasons."""
        self.indices = list(range(len(records)) if indices is None else indices)
        self.dataset = ViewDataset(records, protocol, clip, data, self.indices, failures)
        num_decoded = protocol.num_clips * protocol.decoded_crops
        self._video_bytes = num_decoded * _clip_bytes(clip, data)
        first_paths = {records.paths[index] for index in self.indices[:2]}
        self._in_passes = num_decoded == 1 and len(self.indices) > len(first_paths) == 1

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Generator[VideoViews]:
        """Yield videos in the order of `indices`, unreadable ones without pixels."""
        size = self.videos_per_batch()
        groups = [self.indices[first : first + size] for first in range(0, len(self.indices), size)]
        batch_bytes = size * self._video_bytes
        read = read_batches(self.dataset, self.dataset.reads, lambda done: groups[done:], collate_views, batch_bytes)
        with closing(read) as batches:
            for batch in batches:
                yield from batch

    def videos_per_batch(self) -> int:
        """Return the number of videos that a worker sends at once: one of usual size, or several small ones.

        Of windows, which are decoded in one pass, so many that its seek costs little.
        """
        batch_bytes, least = (_PASS_BYTES, 2) if self._in_passes else (_BATCH_BYTES, _BATCHES_PER_WORKER)
        fair = len(self.indices) // (least * max(1, self.dataset.data.num_workers))
        return max(1, min(batch_bytes // self._video_bytes, fair, _MAX_PER_BATCH))


def _clip_bytes(clip: ClipConfig, data: DataConfig) -> int:
    return math.prod(clip_shape(clip.input_frames, clip.frame_size, data.pixel_format))


def check_readable(records: Records, config: ExperimentConfig) -> None:
    """Read a few videos spread over the records, and raise a UserError if none can be read, as with a wrong root."""
    probes = np.unique(np.linspace(0, len(records) - 1, 8).astype(int)).tolist()
    data = replace(config.data, num_workers=1)
    with closing(iter(EvalLoader(records, get_protocol("center"), config.clip, data, probes))) as videos:
        for video in videos:
            if not video.failure:
                return
            last = video.failure
    fault = f"none of {len(probes)} videos tried could be read (annotated in {records.annotation})"
    raise UserError(f"data.root {str(records.root)!r}: {fault}; the last one: {last.path}: {last.reason}")
