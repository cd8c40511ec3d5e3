"""A setting that takes one of a few values refuses any other, also where a section is built in Python."""

from typing import Literal, get_origin

import pytest

from tests.refusals import refused
from vidtl.config import ClipConfig, ExperimentConfig
from vidtl.config.load import build, leaves

SETTINGS = leaves(ExperimentConfig)


@pytest.mark.parametrize("key", [key for key, leaf in SETTINGS.items() if get_origin(leaf.hint) is Literal])
def test_key_and_value_are_named(key: str) -> None:
    with refused(key, "'no such'"):
        build(ExperimentConfig, {key: leaf.default for key, leaf in SETTINGS.items()} | {key: "no such"})


def test_the_nearest_value_is_named() -> None:
    with refused("clip.sampling", "'segment'", "'segments'"):
        ClipConfig(sampling="segment")  # type: ignore[arg-type]
