"""The reader of each family of published weights."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vidtl.models.weights.load import PublishedModel
from vidtl.models.weights.videomae import is_videomae, read_videomae
from vidtl.models.weights.videoprism import is_videoprism, read_videoprism

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
Reader = Callable[[Config, State, str], PublishedModel]

READERS: list[tuple[Callable[[Config, State], bool], Reader]] = [
    (is_videomae, read_videomae),
    (is_videoprism, read_videoprism),
]


def find_reader(config: Config, state: State) -> Reader | None:
    """Return the reader of the family of a config.json and tensors by name, or None."""
    return next((reader for test, reader in READERS if test(config, state)), None)
