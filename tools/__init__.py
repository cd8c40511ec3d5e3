"""Command lines. In a wheel this folder is `vidtl.tools`: `python -m vidtl.tools.train`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # they import each other by their plain names, as scripts do
