"""Pages for people: their links lead somewhere, and the tables of studies say what the studies wrote."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.environment import REPOSITORY

STUDIES = sorted(file.parent for file in REPOSITORY.glob("docs/results/*/results.json"))

CELLS = {
    "seeds": ("seeds", 1, "{:.0f}"),
    "top-1": ("mean", 100, "{:.1f} %"),
    "published": ("published", 100, "{:.2f} %"),
    "parameters": ("parameters", 1e-6, "{:.2f} M"),
    "multiply-adds": ("multiply_add_ratio", 1, "{:.3f}"),
    "step time": ("time_ratio", 1, "{:.3f}"),
    "step memory": ("step_memory_bytes", 1e-6, "{:.0f} MB"),
    "data wait": ("data_wait_share", 100, "{:.0f} %"),
}
"""How a page tells a figure of `results.json`, by the heading of the column; no figure is an empty cell."""


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return [REPOSITORY / line for line in listed.stdout.splitlines()]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)|<img src=\"([^\"]+)\"", text)
    local = [target for pair in targets for target in pair if target and "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


def diffs() -> list[tuple[str, str]]:
    """Changes that a page shows as examples, with the page's name and the first line of each."""
    blocks = [
        (page, block)
        for page in pages()
        for block in re.findall(r"^```diff\n(.*?)^```$", page.read_text(), re.S | re.M)
    ]
    return [(f"{page.name}: {block.splitlines()[0]}", block) for page, block in blocks]


@pytest.mark.parametrize("block", [block for _, block in diffs()], ids=[name for name, _ in diffs()])
def test_changes_shown_as_examples_fit_the_code(block: str) -> None:
    command = ["git", "apply", "--check", "-"]
    done = subprocess.run(command, cwd=REPOSITORY, input=block, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def heads() -> dict[str, str]:
    """What stands first in every tool and configuration, by its path."""
    tools = {file: ast.get_docstring(ast.parse(file.read_text())) or "" for file in REPOSITORY.glob("tools/*.py")}
    configs = {file: file.read_text().partition("\ndata:")[0] for file in REPOSITORY.glob("configs/*.yaml")}
    return {str(file.relative_to(REPOSITORY)): text for file, text in sorted((tools | configs).items())}


@pytest.mark.parametrize(("file", "head"), heads().items(), ids=heads())
def test_files_named_at_the_head_of_a_tool_or_configuration_exist(file: str, head: str) -> None:
    named = re.findall(r"(?<![\w/])(?:configs|datasets|docs|tests|tools|vidtl)/[\w./-]*\w", head)
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_every_folder_of_the_package_has_its_place_in_the_architecture() -> None:
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    packages = {file.parent.relative_to(REPOSITORY).parts[1] for file in REPOSITORY.glob("vidtl/*/__init__.py")}
    assert {name for name in packages if f"| `vidtl/{name}/` |" not in text} == set()


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_table_of_a_study_says_what_the_study_wrote(folder: Path) -> None:
    lines = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    headings, *told = lines
    rows = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    by_name = {line[0]: dict(zip(headings, line, strict=True)) for line in told}
    columns = [heading for heading in headings if heading in CELLS]
    assert {"top-1", "multiply-adds", "step time"} <= set(columns)
    for row in rows:
        assert [by_name[row["name"]][column] for column in columns] == [written(row, column) for column in columns]


def written(row: dict[str, Any], column: str) -> str:
    key, factor, template = CELLS[column]
    return "" if row[key] is None else template.format(factor * row[key])
