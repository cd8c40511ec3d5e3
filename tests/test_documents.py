"""Pages for people: their links lead somewhere, and the tables of studies say what the studies wrote."""

import json
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
STUDIES = sorted(file.parent for file in REPOSITORY.glob("docs/results/*/results.json"))

CELLS = {
    "top-1": lambda row: f"{100 * row['mean']:.1f} %",
    "parameters": lambda row: f"{row['parameters'] / 1e6:.2f} M",
    "multiply-adds": lambda row: f"{row['multiply_add_ratio']:.3f}",
    "step time": lambda row: f"{row['time_ratio']:.3f}",
    "step memory": lambda row: f"{row['step_memory_bytes'] / 1e6:.0f} MB",
    "data wait": lambda row: f"{100 * row['data_wait_share']:.0f} %",
}
"""How a page tells a figure of `results.json`, by the heading of the column."""


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
    checked = [heading for heading in headings if heading in CELLS]
    assert {"top-1", "multiply-adds", "step time"} <= set(checked)
    for row in rows:
        assert {key: by_name[row["name"]][key] for key in checked} == {key: CELLS[key](row) for key in checked}
