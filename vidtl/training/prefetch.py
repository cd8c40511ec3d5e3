"""Batches on the device: on a GPU, the transfer of the next batch overlaps with the computation of this one."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vidtl.data.batch import ClipBatch
from vidtl.runtime.watchdog import Activity, activity


class Stopwatch:
    """Time of work on the device; on a GPU between two events of a stream, without synchronization."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._start = self._now()
        self._end: Any = None

    def stop(self) -> None:
        """Record the end, on the current stream."""
        self._end = self._now()

    def seconds(self) -> float:
        """Return the seconds between start and end; on a GPU, call it when later work is known to be complete."""
        return float(self._start.elapsed_time(self._end)) / 1e3 if self._on_gpu else self._end - self._start

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class DeviceBatches:
    """Batches of an iterator, moved to `device`."""

    def __init__(self, batches: Iterator[ClipBatch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead: tuple[ClipBatch, Stopwatch] | Exception | None = None
        self.waited_s = 0.0
        """Seconds that the host has waited for batches; the reader resets it."""
        self.transfers: list[Stopwatch] = []
        """One per batch taken; the reader clears them."""

    def take(self) -> ClipBatch:
        """Return the next batch, ready for the current stream; raises the iterator's exceptions."""
        if self._ahead is None:
            self._ahead = self._send()
        ahead, self._ahead = self._ahead, None
        if isinstance(ahead, Exception):
            raise ahead
        batch, transfer = ahead
        self.transfers.append(transfer)
        if self._stream is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_stream(self._stream)
            for value in vars(batch).values():
                if isinstance(value, Tensor):
                    value.record_stream(stream)  # allocated on the other stream
        return batch

    def send_ahead(self) -> None:
        """Start the transfer of the next batch, while the device is busy with the last one taken."""
        if self._stream is not None and self._ahead is None:
            self._ahead = self._send()

    def _send(self) -> tuple[ClipBatch, Stopwatch] | Exception:
        start_s = time.perf_counter()
        try:
            with activity(Activity.READING):
                batch = next(self._batches)
        except Exception as error:  # raised in the step that takes this batch
            return error
        finally:
            self.waited_s += time.perf_counter() - start_s
        with torch.cuda.stream(self._stream):
            transfer = Stopwatch(self._device)
            sent = batch.to(self._device)
            transfer.stop()
        return sent, transfer
