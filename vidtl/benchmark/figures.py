"""From the seconds of many rounds to the few figures that tell something: ratios, and shares of what is possible."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidtl.benchmark.contenders import REFERENCE, BenchmarkSettings, Contender
from vidtl.benchmark.rounds import Rounds, product_shapes

GPU_PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
}
"""FLOP/s of dense bf16 products by words of the device's name, the longer names first (NVIDIA's data sheets)."""


@dataclass(frozen=True, kw_only=True)
class PassFigures:
    """One kind of pass of one model; medians over the rounds."""

    seconds: float
    """Of the whole batch."""
    time_ratio: float
    """Against the factorised encoder without TokenLearner."""
    product_share: float
    """Speed against that of the fastest matrix product of the same run."""
    flop_share: float | None
    """Speed against what the GPU's data sheet promises (MFU); `None` where that is not known."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One model."""

    contender: Contender
    train: PassFigures
    forward: PassFigures
    multiply_add_ratio: float
    """Against the factorised encoder without TokenLearner."""
    peak_bytes: int | None

    @property
    def overhead(self) -> float:
        """Time ratio of a training step over the ratio of multiply-adds: 1 where time falls as the work does."""
        return self.train.time_ratio / self.multiply_add_ratio


def figures_of(
    contenders: Sequence[Contender], rounds: Rounds, settings: BenchmarkSettings, gpu_peak: float | None
) -> list[Figures]:
    """Figures of every model, in the order given; the reference must be among them."""
    product_speed = max(product_speeds(rounds, settings).values())
    reference = next(contender for contender in contenders if contender.key == REFERENCE)

    def pass_figures(seconds: dict[str, list[float]], key: str, multiply_adds: int) -> PassFigures:
        median = statistics.median(seconds[key])
        speed = 2 * multiply_adds * settings.batch / median
        return PassFigures(
            seconds=median,
            time_ratio=median / statistics.median(seconds[REFERENCE]),
            product_share=speed / product_speed,
            flop_share=speed / gpu_peak if gpu_peak else None,
        )

    return [
        Figures(
            contender=contender,
            train=pass_figures(rounds.train, contender.key, contender.train_multiply_adds),
            forward=pass_figures(rounds.forward, contender.key, contender.multiply_adds),
            multiply_add_ratio=contender.multiply_adds / reference.multiply_adds,
            peak_bytes=rounds.peak_bytes.get(contender.key),
        )
        for contender in contenders
    ]


def product_speeds(rounds: Rounds, settings: BenchmarkSettings) -> dict[str, float]:
    """FLOP/s of each product."""
    return {
        name: 2 * rows * inner * outer / statistics.median(rounds.products[name])
        for name, (rows, inner, outer) in product_shapes(settings).items()
    }


def gpu_peak(device_name: str, precision: str) -> float | None:
    """FLOP/s that the data sheet promises; `None` for other devices and precisions."""
    if precision != "bf16":
        return None
    return next((peak for name, peak in GPU_PEAKS.items() if re.search(rf"\b{name}\b", device_name)), None)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A figure that the project promises, for training steps."""

    title: str
    value: float
    limit: float
    at_least: bool

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


PEER_GOALS = {"huggingface": 2.7, "vit_pytorch": 1.05, "timm": 1.1}
"""How many times as fast the factorised encoder is to be; 1.6 of the first is that joint attention does more work."""

PRODUCT_SHARE_GOAL = 0.85
MFU_GOALS = (0.40, 0.30)
"""Without TokenLearner, and with 8 tokens after a quarter of the blocks."""

QUARTER_GOALS = {8: 0.30, 16: 0.33}
HALF_GOAL = 0.54
OVERHEAD_GOAL = 1.05


def goals_of(figures: Sequence[Figures], settings: BenchmarkSettings, precision: str) -> Iterator[Goal]:
    """What was to be reached and what is; only for B/16x2 and clips of 32 x 224 x 224."""
    if (settings.size, settings.num_frames, settings.frame_size) != ("B", 32, 224):
        return
    by_key = {entry.contender.key: entry for entry in figures}
    yield from _peer_goals(by_key, precision)
    yield from _speed_goals(by_key, settings)
    if settings.depth % 4 == 0:
        yield from _token_learner_goals(by_key, settings.depth // 4, settings.depth // 2)


def _peer_goals(by_key: Mapping[str, Figures], precision: str) -> Iterator[Goal]:
    for peer, limit in PEER_GOALS.items():
        times = [entry.train.time_ratio for key, entry in by_key.items() if key.startswith(peer)]
        # the goal against Hugging Face was set where bf16 is the faster precision
        if times and not (peer == "huggingface" and precision == "fp32"):
            title = f"times as fast as {peer}" + (" at its fastest" if len(times) > 1 else "")
            yield Goal(title=title, value=min(times), limit=limit, at_least=True)


def _speed_goals(by_key: Mapping[str, Figures], settings: BenchmarkSettings) -> Iterator[Goal]:
    """Of the speed of matrix products on a CPU, of the data sheet's on a GPU."""
    reference = by_key[REFERENCE]
    if reference.peak_bytes is None:
        share = reference.train.product_share
        yield Goal(title="share of the products' speed", value=share, limit=PRODUCT_SHARE_GOAL, at_least=True)
    for key, limit in zip((REFERENCE, f"fe_tl8at{settings.depth // 4}"), MFU_GOALS, strict=True):
        flop_share = by_key[key].train.flop_share
        if flop_share is not None:
            yield Goal(
                title=f"MFU of {by_key[key].contender.title.strip()}", value=flop_share, limit=limit, at_least=True
            )


def _token_learner_goals(by_key: Mapping[str, Figures], quarter: int, half: int) -> Iterator[Goal]:
    for tokens, limit in QUARTER_GOALS.items():
        ratio = by_key[f"fe_tl{tokens}at{quarter}"].train.time_ratio
        yield Goal(title=f"time, {tokens} tokens after a quarter", value=ratio, limit=limit, at_least=False)
    ratio = by_key[f"fe_tl8at{half}"].train.time_ratio
    yield Goal(title="time, 8 tokens after a half", value=ratio, limit=HALF_GOAL, at_least=False)
    overhead = max(by_key[f"fe_tl{tokens}at{after}"].overhead for tokens in (8, 16) for after in (quarter, half))
    yield Goal(title="time/GMAC from a quarter on", value=overhead, limit=OVERHEAD_GOAL, at_least=False)
