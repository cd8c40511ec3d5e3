"""Lengths of time in a run: `30 epochs`, `5000 steps` or `2_000_000 samples`."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from vidtl.errors import UserError, did_you_mean

Unit = Literal["epochs", "steps", "samples"]

_LENGTH = re.compile(r"(?P<number>\d+(_\d+)*(\.\d+)?(e\d+)?)\s*(?P<unit>[a-z]+)")


@dataclass(frozen=True)
class Length:
    """A number of epochs (passes over the training split), optimizer steps, or samples of the training split."""

    number: float
    unit: Unit

    def to_steps(self, steps_per_epoch: int, samples_per_epoch: int) -> int:
        """Convert to the nearest number of optimizer steps.

        A sample counts as its share of an epoch, so that one epoch, its samples and its steps are the same length
        although the last batch of an epoch may not be full.
        """
        steps_per_unit = {"epochs": steps_per_epoch, "steps": 1, "samples": steps_per_epoch / samples_per_epoch}
        return round(self.number * steps_per_unit[self.unit])


def parse_length(text: str, key: str) -> Length:
    """Parse a length; UserError with the dotted `key` and what is allowed."""
    match = _LENGTH.fullmatch(text.strip().lower())
    allowed = "a number and its unit, as in '30 epochs', '5000 steps' or '2_000_000 samples'"
    if match is None or not math.isfinite(float(match["number"])):
        raise UserError(f"{key} is {text!r}; allowed: {allowed}")
    for unit in get_args(Unit):
        if match["unit"] in (unit, unit.removesuffix("s")):
            return Length(float(match["number"]), unit)
    raise UserError(f"{key} is {text!r}; {did_you_mean(match['unit'], get_args(Unit))}")
