"""Batches on the device: on a GPU the next one travels on a stream of its own while this one is computed."""

import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from vidtl.data.batch import ClipBatch


class Stopwatch:
    """Seconds of a stretch of work on the device; on a GPU between two events of a stream, so that nobody waits."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._start = self._now()
        self._end: Any = None

    def stop(self) -> None:
        """End of the stretch, on the stream that is current."""
        self._end = self._now()

    def seconds(self) -> float:
        """To be asked, on a GPU, after something that came later is known to be done."""
        return float(self._start.elapsed_time(self._end)) / 1e3 if self._on_gpu else self._end - self._start

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class DeviceBatches:
    """Batches of an iterator, on `device`."""

    def __init__(self, batches: Iterator[ClipBatch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._ahead: tuple[ClipBatch, Stopwatch] | Exception | None = None
        self.waited_s = 0.0
        """Seconds that the host has waited for batches; whoever reads it sets it back."""
        self.transfers: list[Stopwatch] = []
        """One per batch taken; whoever reads them clears them."""

    def take(self) -> ClipBatch:
        """The next batch, ready for the current stream.

        Raises whatever the iterator raised, `StopIteration` at its end.
        """
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
            for field in fields(batch):
                value = getattr(batch, field.name)
                if isinstance(value, Tensor):
                    value.record_stream(stream)  # its memory was taken on the other stream
        return batch

    def send_ahead(self) -> None:
        """Start the transfer of the next batch; called while the device is busy with the one taken last."""
        if self._stream is not None and self._ahead is None:
            self._ahead = self._send()

    def _send(self) -> tuple[ClipBatch, Stopwatch] | Exception:
        start_s = time.perf_counter()
        try:
            batch = next(self._batches)
        except Exception as error:  # it belongs to the step that asks for this batch
            return error
        finally:
            self.waited_s += time.perf_counter() - start_s
        with torch.cuda.stream(self._stream):
            transfer = Stopwatch(self._device)
            sent = batch.to(self._device)
            transfer.stop()
        return sent, transfer
