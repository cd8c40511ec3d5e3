"""Documents: links, named files, options of commands and names in Python examples exist."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidtl
from tests.environment import REPOSITORY
from tests.stress import reliability


def _pages() -> dict[str, Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return {name: REPOSITORY / name for name in listed.stdout.splitlines()}


PAGES = _pages()
GUIDES = [name for name in PAGES if not name.startswith("docs/results/")]
"""Pages without those of results, which show the commands of their time."""


def test_the_readme_is_short_and_links_all_pages() -> None:
    text = PAGES["README.md"].read_text(encoding="utf-8")
    assert len(text.split()) <= 1300
    assert [name for name in PAGES if name.startswith("docs/") and name.count("/") == 1 and name not in text] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_repository_exist(name: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)|<img src=\"([^\"]+)\"", PAGES[name].read_text(encoding="utf-8"))
    local = [target for pair in targets for target in pair if target and "://" not in target]
    assert [target for target in local if not (PAGES[name].parent / target).exists()] == []


def _heads() -> dict[str, str]:
    """Read the text at the top of every tool, benchmark and configuration."""
    scripts = [*REPOSITORY.glob("tools/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    heads = {file: ast.get_docstring(ast.parse(file.read_text())) or "" for file in scripts}
    heads |= {file: file.read_text().partition("\ndata:")[0] for file in REPOSITORY.glob("configs/**/*.yaml")}
    return {str(file.relative_to(REPOSITORY)): text for file, text in sorted(heads.items())}


HEADS = _heads()


@pytest.mark.parametrize("name", HEADS)
def test_files_named_at_the_head_of_a_file_exist(name: str) -> None:
    named = re.findall(r"(?<![\w/])(?:configs|datasets|docs|tests|tools|vidtl)/[\w./-]*\w", HEADS[name])
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a text that run a tool, from its name on, with continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.search(r"(?:tools/\w+\.py|^vidtl \w+) [^`]*", line.lstrip("# ")):
            words = shlex.split(re.split(r" #|   |[;)<&|]| > ", match[0])[0], posix=False)
            yield [word for word in words if word != "..."]


@pytest.mark.parametrize("name", [*GUIDES, *HEADS])
def test_options_of_shown_commands_exist(name: str) -> None:
    from command_line import ExperimentParser

    settings = {option for action in ExperimentParser("", "")._actions for option in action.option_strings}
    declared = set(re.findall(r'"(--[\w-]+)"', "".join(file.read_text() for file in REPOSITORY.glob("tools/*.py"))))
    for command in _commands(HEADS.get(name) or PAGES[name].read_text(encoding="utf-8")):
        options = [word.partition("=")[0].rstrip(",.") for word in command if re.match(r"--\w", word)]
        assert [option for option in options if option not in settings | declared] == [], command


@pytest.mark.parametrize("name", GUIDES)
def test_names_in_python_examples_exist(name: str) -> None:
    for text in re.findall(r"^```python\n(.*?)^```$", PAGES[name].read_text(encoding="utf-8"), re.S | re.M):
        imports = [line for line in ast.parse(text).body if isinstance(line, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), name, "exec"), {})
        assert [each for each in re.findall(r"\bvidtl\.(\w+)\(", text) if not hasattr(vidtl, each)] == []


def test_the_page_of_the_stress_tests_has_every_recorded_experiment() -> None:
    results = json.loads((REPOSITORY / "docs/results/reliability.json").read_text())
    text = reliability.page(results)
    assert {name for name in reliability.EXPERIMENTS if f"**{name}**" in text} == reliability.EXPERIMENTS.keys()
