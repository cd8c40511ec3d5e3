"""Imports run down only, and sizes stay within limits; `python -m tests.structure` prints them."""

from tests import structure
from vidtl.config import ExperimentConfig
from vidtl.config.load import leaves

LIBRARY, WHOLE, TESTS = 21_030, 26_700, 20_920
"""Lines of vidtl, of vidtl with tools and benchmarks, and of tests."""

BIGGEST_ROOM, SETTINGS, FILES_BEHIND_TRAIN, MAX_FLOORS = 0.20, 125, 133, 8


def test_imports_run_down() -> None:
    assert structure.forbidden_arrows() == {}
    rooms = {structure.room(module) for module in structure.modules()} - {"vidtl"}
    assert rooms == set().union(*structure.FLOORS)
    assert len(structure.FLOORS) <= MAX_FLOORS


def test_imports_make_no_circles() -> None:
    """Also not those inside functions, which only spare time at the start."""
    assert structure.modules_in_circles() == set()


def test_files_and_functions_are_short() -> None:
    assert {file: count for file, count in structure.num_lines().items() if count > structure.FILE_LINES} == {}
    assert structure.long_functions() == {}


def test_the_whole_stays_small() -> None:
    package = {name: count for name, count in structure.room_lines().items() if name not in structure.FLOORS[-1]}
    assert max(package.values()) <= BIGGEST_ROOM * sum(package.values())
    assert structure.folder_lines("vidtl") <= LIBRARY
    assert structure.folder_lines("vidtl", "tools", "benchmarks") <= WHOLE
    assert structure.folder_lines("tests") <= TESTS
    assert len(leaves(ExperimentConfig)) <= SETTINGS
    assert len(structure.reachable("tools.train")) <= FILES_BEHIND_TRAIN
