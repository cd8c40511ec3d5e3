"""Write the HTML report of an evaluation again, from its files alone: no model, no videos.

python tools/report.py runs/toy/evaluation/step-00001200/val-center
"""

from pathlib import Path

from command_line import PlainParser

from vidtl.evaluation.page import write_page
from vidtl.runtime.launch import run_tool


def main() -> None:
    description = "Write the HTML report of an evaluation again, from its files."
    parser = PlainParser(prog="report.py", description=description, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder of the evaluation, with metrics.json and examples/")
    print(f"page  {write_page(parser.parse_args().folder)}")


if __name__ == "__main__":
    run_tool(main)
