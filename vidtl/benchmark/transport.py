"""What it costs to bring clips from a decoding worker to the training process, in each form that they may have."""

import resource
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset


class Form(NamedTuple):
    """Pixels of a clip of 32 x 224 x 224 as they travel."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


PLANAR, FLOAT = "uint8 planar (4:2:0)", "float32 RGB"

FORMS = (
    Form("nothing", (1,), torch.uint8),
    Form(PLANAR, (32, 224 * 3 // 2, 224), torch.uint8),
    Form("uint8 RGB", (32, 224, 224, 3), torch.uint8),
    Form(FLOAT, (3, 32, 224, 224), torch.float32),
)


class _Clips(Dataset[torch.Tensor]):
    def __init__(self, form: Form, count: int) -> None:
        self.form = form
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full(self.form.shape, index % 256, dtype=self.form.dtype)


def time_transport(num_batches: int, batch_size: int, num_rounds: int) -> dict[str, list[float]]:
    """CPU seconds per clip in all processes, less what a clip of one byte costs: a value per round for each form."""
    times: dict[str, list[float]] = {form.name: [] for form in FORMS[1:]}
    for _ in range(num_rounds):
        nothing, *seconds = [_cpu_s(form, num_batches, batch_size) for form in FORMS]
        for form, total in zip(FORMS[1:], seconds, strict=True):
            times[form.name].append((total - nothing) / (num_batches * batch_size))
    return times


def _cpu_s(form: Form, num_batches: int, batch_size: int) -> float:
    """Of this process and of two workers, which have ended, and so count, once their iterator is gone."""
    before = _used_s()
    loader = DataLoader(_Clips(form, num_batches * batch_size), batch_size=batch_size, num_workers=2)
    for batch in loader:
        assert len(batch) == batch_size
    return _used_s() - before


def _used_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
