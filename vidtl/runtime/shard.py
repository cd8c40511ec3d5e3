"""Parts of a job array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from vidtl.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Job `number` of `count`, from 1, which takes every count-th item."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `2/8`; UserError for anything but i/n with 1 <= i <= n."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--shard is {text!r}; allowed: i/n with i from 1 to n, such as 2/8")
        return cls(int(match[1]), int(match[2]))

    def take(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this job."""
        return items[self.number - 1 :: self.count]

    @property
    def name(self) -> str:
        """The shard's part of file names."""
        return f"part-{self.number}-of-{self.count}"
