"""Batches in a global order that is a pure function of (seed, epoch).

Optimizer step s of an epoch takes places s·G to (s+1)·G of that epoch's permutation, for a global batch of G clips:

    step            |<---------------------- G ---------------------->|
    micro-batch     |<-------- 0 -------->|<-------- 1 -------->| ...     accumulation_steps of them
    process         |   0   |   1   | ... |   0   |   1   | ... |         num_processes in each

so the clips of a step do not depend on how many processes or accumulation steps share them, and a run can go on from
any step without decoding what came before. The last step of an epoch is filled up with clips of weight 0.
"""

import atexit
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from vidtl.config import ExperimentConfig
from vidtl.data.batch import ClipBatch, VideoViews
from vidtl.data.dataset import ClipDataset, ClipKey, ViewDataset, collate
from vidtl.data.protocols import Protocol
from vidtl.data.records import Records
from vidtl.errors import UserError
from vidtl.runtime.seeding import generator


@lru_cache(maxsize=2)  # around the end of an epoch, prefetching asks for two of them in turn
def epoch_order(num_records: int, seed: int, epoch: int) -> np.ndarray:
    """Order in which one epoch visits the records: int64 [num_records]."""
    return generator(seed, epoch).permutation(num_records)


class MicroBatchSampler(Sampler[list[ClipKey]]):
    """Keys of one process's micro-batches from a step on, through all epochs to the end of the run."""

    def __init__(self, loader: "TrainLoader", start_step: int) -> None:
        self.loader = loader
        self.start_step = start_step

    def __iter__(self) -> Iterator[list[ClipKey]]:
        loader = self.loader
        for step in range(self.start_step, loader.total_steps):
            for micro_batch in range(loader.accumulation_steps):
                yield loader.keys(step, micro_batch)

    def __len__(self) -> int:
        return (self.loader.total_steps - self.start_step) * self.loader.accumulation_steps


class TrainLoader:
    """Training micro-batches of one process."""

    def __init__(self, records: Records, config: ExperimentConfig, process_index: int, num_processes: int) -> None:
        """Raises UserError where the global batch cannot be shared evenly."""
        training = config.training
        parts = num_processes * training.accumulation_steps
        if training.batch_size % parts:
            raise UserError(
                f"training.batch_size is {training.batch_size}; allowed: multiples of {parts} "
                f"({num_processes} processes x {training.accumulation_steps} accumulation steps)"
            )
        self.records = records
        self.config = config
        self.process_index = process_index
        self.num_processes = num_processes
        self.batch_size = training.batch_size
        self.micro_batch_size = training.batch_size // parts
        self.accumulation_steps = training.accumulation_steps
        self.steps_per_epoch = -(-len(records) // self.batch_size)
        self.samples_per_epoch = len(records)
        self.total_steps = config.schedule.total_steps(self.steps_per_epoch, self.samples_per_epoch)

    def global_count(self, step: int) -> int:
        """Clips of weight 1 in one optimizer step, over all processes."""
        place = step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, len(self.records) - place)

    def keys(self, step: int, micro_batch: int) -> list[ClipKey]:
        """This process's clips of one micro-batch."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self.records), self.config.training.seed, epoch)
        part = micro_batch * self.num_processes + self.process_index
        first = step_in_epoch * self.batch_size + part * self.micro_batch_size
        places = range(first, first + self.micro_batch_size)
        return [ClipKey(epoch, int(order[place % len(order)]), float(place < len(order))) for place in places]

    def iterate(self, start_step: int = 0) -> Iterator[ClipBatch]:
        """Micro-batches from `start_step` to the end of the run, `accumulation_steps` for each step.

        The workers live as long as the iterator: no epoch waits for their start.

        Raises:
            UserError: too many videos in a row could not be read, or a worker died or hung (its videos named).
        """
        dataset = ClipDataset(self.records, self.config)
        sampler = MicroBatchSampler(self, start_step)
        batches = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **_worker_options(self.config))
        with _workers_ended(batches) as iterator:
            for keys in sampler:
                with _named_failures(self.records, [key.record for key in keys]):
                    batch = next(iterator)
                yield batch


class EvalLoader:
    """Evaluation views of one process: records `process_index`, `process_index + num_processes`, ..., each once."""

    def __init__(
        self,
        records: Records,
        config: ExperimentConfig,
        protocol: Protocol,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.indices = list(range(process_index, len(records), num_processes))
        self.dataset = ViewDataset(records, config, protocol)

    def __len__(self) -> int:
        """Videos of this process."""
        return len(self.indices)

    def __iter__(self) -> Iterator[VideoViews]:
        """Videos in record order; one that cannot be read comes with its reason and no pixels.

        Raises:
            UserError: a worker died or hung (the video named).
        """
        config = self.dataset.config
        videos = DataLoader(self.dataset, batch_size=None, sampler=self.indices, **_worker_options(config))
        with _workers_ended(videos) as iterator:
            for index in self.indices:
                with _named_failures(self.dataset.records, [index]):
                    video = next(iterator)
                yield video


def _worker_options(config: ExperimentConfig) -> dict[str, Any]:
    """DataLoader settings that depend on whether there are workers at all."""
    data = config.data
    if data.num_workers == 0:
        return {"num_workers": 0}
    return {
        "num_workers": data.num_workers,
        "prefetch_factor": data.prefetch_batches,
        "timeout": data.worker_timeout_s,
        "worker_init_fn": _start_worker,
    }


def _start_worker(worker_index: int) -> None:
    """Leave signals to the training process: Ctrl-C and batch systems reach the workers too, in mid-step."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _workers_ended(batches: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """An iterator over `batches` whose workers are gone when the block ends, a hung one included."""
    iterator: Any = iter(batches)

    def end() -> None:
        # PyTorch has no public way to end the workers now rather than when the iterator happens to be collected.
        if batches.num_workers > 0:
            iterator._shutdown_workers()  # asks them to end, and waits, but not for ever
            for worker in iterator._workers:
                worker.kill()

    # After an error this block may still be open when Python ends, which would wait for workers that ignore signals.
    atexit.register(end)
    try:
        yield iterator
    finally:
        end()
        atexit.unregister(end)


@contextmanager
def _named_failures(records: Records, indices: list[int]) -> Iterator[None]:
    """Name the videos that were due when a worker hung or died; a worker's UserError stays the one line it was."""
    try:
        yield
    except UserError as error:
        # The DataLoader hands on a worker's exception with the worker's traceback as its text; the message comes last.
        raise UserError(str(error).strip().rpartition("UserError: ")[2]) from None
    except (RuntimeError, ConnectionError) as error:
        lines = str(error).splitlines()
        if isinstance(error, RuntimeError) and not lines[0].startswith("DataLoader"):
            raise  # an error in our code, not of the workers' processes
        paths = ", ".join(records.paths[index] for index in indices)
        raise UserError(f"a decoding worker failed at or near {paths} ({lines[0]})") from error
