"""Write the HTML report of an evaluation again, from its files alone, without model and videos.

python tools/report.py runs/toy/evaluation/step-00001200/val-center
"""

from pathlib import Path

from command_line import PlainParser

from vidtl.runtime.files import say
from vidtl.runtime.signals import run_tool


def main() -> None:
    parser = PlainParser(prog="report.py", description="Write the HTML report of an evaluation again.")
    parser.add_argument("folder", type=Path, help="folder of the evaluation, with metrics.json and examples/")
    folder = parser.parse_args().folder
    from vidtl.evaluation.page import write_page  # after the options: it takes seconds to import

    say(f"page  {write_page(folder)}")


if __name__ == "__main__":
    run_tool(main)
