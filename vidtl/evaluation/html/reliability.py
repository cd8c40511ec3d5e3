"""The reliability diagram in the page's coordinates: confidence to the right, share of right ones upwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

LEFT, BOTTOM, SIDE = 44, 310, 300
"""The diagram is a square of `SIDE` units whose lower left corner is here; the piles of counts stand below it."""

PILE_HEIGHT = 44


@dataclass(frozen=True)
class Bin:
    """One group of decisions; `low` to `high` are its limits of confidence, the rest of the numbers are coordinates."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    x: float
    y: float
    ideal_y: float
    radius: float
    left: float
    width: float
    height: float


def reliability(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the template draws, or None where there is no calibration."""
    found = record.get("calibration")
    if not found or not sum(found["counts"]):
        return None
    multi_label = bool(record["multi_label"])
    most = max(found["counts"])
    edges = list(zip(found["edges"], found["edges"][1:], strict=False))
    bins = [
        _bin(limits, count, confidence, accuracy, (count / most) ** (0.5 if multi_label else 1))
        for limits, count, confidence, accuracy in zip(
            edges, found["counts"], found["confidences"], found["accuracies"], strict=True
        )
        if count
    ]
    unit = "decisions" if multi_label else "videos"
    points = " L".join(f"{point.x:.1f} {point.y:.1f}" for point in bins)
    return {
        "ece": found["ece"],
        "bins": bins,
        "curve": f"M{points}",
        "unit": unit,
        "alt": f"Reliability diagram: share of right {unit} against confidence, in percent, in {len(bins)} groups. "
        "The table beside it holds the numbers.",
    }


def _bin(limits: tuple[float, float], count: int, confidence: float, accuracy: float, share: float) -> Bin:
    return Bin(
        low=limits[0],
        high=limits[1],
        count=count,
        confidence=confidence,
        accuracy=accuracy,
        x=round(LEFT + SIDE * confidence, 1),
        y=round(BOTTOM - SIDE * accuracy, 1),
        ideal_y=round(BOTTOM - SIDE * confidence, 1),
        radius=round(3 + 4 * sqrt(share), 1),
        left=round(LEFT + SIDE * limits[0], 1),
        width=round(SIDE * (limits[1] - limits[0]), 1),
        height=round(max(PILE_HEIGHT * share, 1), 1),
    )
