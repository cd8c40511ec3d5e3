"""Measure the structure of the code: `python -m tests.structure` prints it, tests/test_structure.py sets limits."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.environment import REPOSITORY

FLOORS = (
    {"errors"},
    {"video", "config", "runtime"},
    {"annotations", "models", "metrics"},
    {"data"},
    {"prepare", "training", "visualize"},
    {"evaluation"},
    {"tools", "benchmarks", "__main__"},
)
"""Rooms from the bottom up: imports run down only, not within a floor; `vidtl` itself (version, lazy public names) may
be imported by all."""

FUNCTION_LINES, FILE_LINES = 60, 300


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, Path]:
    """Return every file of the library, the tools and the benchmarks by its module name."""
    files = [file for folder in ("vidtl", "tools", "benchmarks") for file in (REPOSITORY / folder).rglob("*.py")]
    names = {file: ".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in sorted(names.items())}


def room(module: str) -> str:
    """Return `data` for `vidtl.annotations.records`, `tools` for `tools.train`, `vidtl` for the package itself."""
    first, *rest = module.split(".")
    return rest[0] if first == "vidtl" and rest else first


def imported(module: str) -> Iterator[str]:
    """Yield the own modules that a module imports, also inside functions."""
    for node in ast.walk(tree(modules()[module])):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            own = f"tools.{name}" if f"tools.{name}" in modules() else name  # tools import each other by plain names
            if own in modules() and own != module:
                yield own


def arrows() -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Return the imports between rooms: (importing room, imported room) -> pairs of modules."""
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for module in modules():
        for other in imported(module):
            if room(module) != room(other):
                found.setdefault((room(module), room(other)), set()).add((module, other))
    return found


def forbidden_arrows() -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Return the arrows that do not run down, and those from video except to errors."""
    height = {name: number for number, floor in enumerate(FLOORS) for name in floor} | {"vidtl": -1}
    return {
        (source, target): pairs
        for (source, target), pairs in arrows().items()
        if source != "vidtl" and (height[target] >= height[source] or (source == "video" and target != "errors"))
    }


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Number the nodes of a graph from the bottom up, except those in or above a circle."""
    number: dict[str, int] = {}
    while ready := {node for node in graph if node not in number and graph[node] <= number.keys()}:
        number |= {node: 1 + max((number[below] for below in graph[node]), default=0) for node in ready}
    return number


def room_graph() -> dict[str, set[str]]:
    rooms = {room(module) for module in modules()} - {"vidtl"}
    return {name: {target for source, target in arrows() if source == name and target in rooms} for name in rooms}


def modules_in_circles() -> set[str]:
    """Return the modules in or between circles of imports, including imports inside functions."""
    graph = {module: set(imported(module)) - {"vidtl"} for module in modules()}
    left = graph.keys() - floors(graph).keys()
    below = {module: {other for other in left if module in graph[other]} for module in left}
    return left - floors(below).keys()


def reachable(start: str) -> set[str]:
    """Return the own files behind a module: its static imports, transitively, and their packages."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            parents = [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
            waiting += [name for name in (*imported(module), *parents) if name in modules()]
    return seen


def num_lines() -> dict[str, int]:
    return {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in modules().items()}


def room_lines() -> dict[str, int]:
    """Return the lines of each room; the readers of published weights, a file per family, are one of their own."""
    lines: dict[str, int] = {}
    for module, count in num_lines().items():
        name = "models.weights" if module.startswith("vidtl.models.weights") else room(module)
        lines[name] = lines.get(name, 0) + count
    return dict(sorted(lines.items(), key=lambda item: -item[1]))


def folder_lines(*folders: str) -> int:
    """Count the lines of Python files and templates."""
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*") if file.suffix in (".py", ".j2")]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def long_functions() -> dict[str, int]:
    """Return functions with more than `FUNCTION_LINES` lines, signatures aside: a line for each setting of a model."""
    functions = [
        (f"{module}.{node.name}", node.end_lineno - node.body[0].lineno + 1)  # type: ignore[operator]
        for module, file in modules().items()
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {name: count for name, count in functions if count > FUNCTION_LINES}


def main() -> None:
    from vidtl.config import ExperimentConfig
    from vidtl.config.load import leaves

    lines = room_lines()
    library = sum(count for name, count in lines.items() if name not in FLOORS[-1])
    print("lines:", ", ".join(f"{name} {count}" for name, count in lines.items()))
    print("with tools and benchmarks:", folder_lines("vidtl", "tools", "benchmarks"), "tests:", folder_lines("tests"))
    print(f"vidtl: {folder_lines('vidtl')}; biggest room: {max(lines, key=lines.get)}, "
          f"{max(lines.values()) / library:.1%}")  # fmt: skip
    numbers = floors(room_graph())
    for floor in sorted(set(numbers.values()), reverse=True):
        print(f"floor {floor}:", ", ".join(sorted(name for name, number in numbers.items() if number == floor)))
    print("rooms in or above a circle:", sorted(room_graph().keys() - numbers.keys()))
    print("modules in a circle:", sorted(modules_in_circles()))
    for (source, target), pairs in forbidden_arrows().items():
        print(f"forbidden: {source} -> {target}:", ", ".join(f"{a} -> {b}" for a, b in sorted(pairs)))
    print("long files:", {name: count for name, count in num_lines().items() if count > FILE_LINES})
    print("long functions:", long_functions())
    print("settings:", len(leaves(ExperimentConfig)))
    print("own files behind tools/train.py:", len(reachable("tools.train")))


if __name__ == "__main__":
    main()
