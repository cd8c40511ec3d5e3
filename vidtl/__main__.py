"""The command `vidtl TOOL ...`, also `python -m vidtl`: run the tools, which a wheel has in the package."""

import runpy
from pathlib import Path


def main() -> None:
    """Run `tools/__main__.py`."""
    folders = (folder / "tools" for folder in (Path(__file__).parent, Path(__file__).parents[1]))
    runpy.run_path(str(next(folder for folder in folders if folder.is_dir())), run_name="__main__")


if __name__ == "__main__":
    main()
