"""Timing models and matrix products in turns, so that whatever disturbs the machine disturbs all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor, nn

from vidtl.benchmark.contenders import NUM_CLASSES, BenchmarkSettings
from vidtl.runtime.seeding import generator

CUDA_REPEATS = 10
"""Calls per timing on a GPU, where one call is too short."""


PRODUCTS = ("outputs", "input_gradients", "weight_gradients")
"""The products of a linear layer in a training step."""


@dataclass(frozen=True)
class Rounds:
    """Seconds of each round by the name of what was timed, one warm-up round not among them."""

    train: dict[str, list[float]] = field(default_factory=dict)
    """Forward and backward pass of a batch, without optimizer."""
    forward: dict[str, list[float]] = field(default_factory=dict)
    """Forward pass of a batch in evaluation."""
    products: dict[str, list[float]] = field(default_factory=dict)
    """Single matrix products at the model's shapes."""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """GPU only: weights, activations and gradients of a training step."""


def product_shapes(settings: BenchmarkSettings) -> dict[str, tuple[int, int, int]]:
    """Rows, inner and outer width of the linear layers that a block is made of; each takes part in three products."""
    rows, width = settings.num_tokens, settings.shape.width
    layers = ((rows, width, width), (rows, width, 4 * width), (rows, 4 * width, width))
    return {f"{' x '.join(map(str, layer))} {part}": layer for layer in layers for part in PRODUCTS}


def run_rounds(
    models: Mapping[str, nn.Module],
    settings: BenchmarkSettings,
    device: torch.device,
    autocast: torch.dtype | None,
    num_rounds: int,
) -> Rounds:
    """Every model and product once per round and once before to warm up, up and down the list in turn."""
    actions = _actions(models, settings, device, autocast)
    result = Rounds()
    for number in range(num_rounds + 1):
        for kind, name, action in actions if number % 2 else reversed(actions):
            if number == 0 and device.type == "cuda" and kind == "train":
                result.peak_bytes[name] = _peak_bytes(action, models[name])
            seconds = seconds_of(action, device)
            if number:
                getattr(result, kind).setdefault(name, []).append(seconds)
    return result


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: CUDA events on a GPU, elsewhere the CPU time of this process over all of its threads.

    CPU time leaves out what other processes take; elapsed time would not.
    """
    if device.type == "cuda":
        start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(CUDA_REPEATS):
            action()
        end.record()
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3 / CUDA_REPEATS
    begin = time.process_time()
    action()
    return time.process_time() - begin


Action = tuple[str, str, Callable[[], object]]
"""The list that its seconds belong to, its name there, and what is timed."""


def _actions(
    models: Mapping[str, nn.Module], settings: BenchmarkSettings, device: torch.device, autocast: torch.dtype | None
) -> Sequence[Action]:
    random = torch.Generator().manual_seed(int(generator(0).integers(2**62)))
    clip_shape = (settings.batch, settings.num_frames, 3, settings.frame_size, settings.frame_size)
    clips = torch.randn(clip_shape, generator=random).to(device)
    targets = torch.randint(NUM_CLASSES, (settings.batch,), generator=random).to(device)
    actions: list[Action] = []
    for name, model in models.items():
        actions.append(("train", name, _train(model, clips, targets, autocast)))
        actions.append(("forward", name, _forward(model, clips, autocast)))
    for name, layer in product_shapes(settings).items():
        actions.append(("products", name, _product(name.split()[-1], layer, autocast or torch.float32, random, device)))
    return actions


def _product(
    part: str, layer: tuple[int, int, int], dtype: torch.dtype, random: torch.Generator, device: torch.device
) -> Callable[[], Tensor]:
    """A product as the layer has it in memory, but into memory that is there already: as fast as products can be."""
    rows, inner, outer = layer
    tokens, weight, gradient = (
        torch.randn(shape, generator=random).to(device, dtype)
        for shape in ((rows, inner), (outer, inner), (rows, outer))
    )
    left, right = {
        "outputs": (tokens, weight.T),
        "input_gradients": (gradient, weight),
        "weight_gradients": (gradient.T, tokens),
    }[part]
    out = left @ right
    return lambda: torch.mm(left, right, out=out)


def _train(model: nn.Module, clips: Tensor, targets: Tensor, autocast: torch.dtype | None) -> Callable[[], None]:
    def step() -> None:
        model.train()
        with _autocast(clips.device, autocast):
            logits_BK = model(clips)
        F.cross_entropy(logits_BK.float(), targets).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)

    return step


def _forward(model: nn.Module, clips: Tensor, autocast: torch.dtype | None) -> Callable[[], None]:
    def step() -> None:
        model.eval()
        with torch.no_grad(), _autocast(clips.device, autocast):
            model(clips)

    return step


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def _peak_bytes(step: Callable[[], object], model: nn.Module) -> int:
    """Most memory during a step, without the other models' weights; compiled models are compiled before."""
    step()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return torch.cuda.max_memory_allocated() - before + weights
