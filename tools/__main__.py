"""Run a tool, or list them.

vidtl train --config toy --output_dir runs/toy --processes 2
"""

import ast
import runpy
import sys
from pathlib import Path

from vidtl.errors import UserError, did_you_mean
from vidtl.runtime.signals import exit_on_error


def list_tools() -> dict[str, str]:
    """Return the first line about each tool; other files here have no `__main__`."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("[a-z]*.py"))}
    tools = {name: ast.get_docstring(ast.parse(text)) or "" for name, text in texts.items() if '"__main__"' in text}
    return {name: text.partition("\n")[0] for name, text in tools.items()}


def main() -> None:
    with exit_on_error():
        name, *options = sys.argv[1:] or ["--help"]
        tools = list_tools()
        if name in ("-h", "--help"):
            print("usage: vidtl TOOL ..., or vidtl TOOL --help\n")
            print("\n".join(f"{tool:<16} {line}" for tool, line in tools.items()))
            return
        if name not in tools:
            raise UserError(f"no tool {name!r}; {did_you_mean(name, tools)}")
    sys.argv[1:] = options
    runpy.run_path(str(Path(__file__).with_name(f"{name}.py")), run_name="__main__")


if __name__ == "__main__":
    main()
