"""Record the results of the tools on small fixed inputs.

python -m tests.snapshot.collect collected.json [sections]   values that test_snapshot.py compares
python -m tests.snapshot.collect --write [sections]          new record; only for an intended change
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.snapshot.sections import SECTIONS
from tests.snapshot.workplace import Workplace, prepare_process

RECORD = Path(__file__).with_name("snapshot.json")


def write_record(collected: dict[str, Any]) -> None:
    """Replace sections of `snapshot.json`, one value per line."""
    record = json.loads(RECORD.read_text()) | collected
    texts = (f'"{name}": {{\n{_lines(values, 1)}\n}}' for name, values in sorted(record.items()))
    RECORD.write_text("{\n" + ",\n".join(texts) + "\n}\n")


def _lines(section: dict[str, Any], depth: int) -> str:
    return ",\n".join(
        f"{json.dumps(key)}: {{\n{_lines(value, depth - 1)}\n}}"
        if depth and isinstance(value, dict)
        else f"{'' if depth else '  '}{json.dumps(key)}: {json.dumps(value)}"
        for key, value in section.items()
    )


def main() -> None:
    output, *sections = sys.argv[1:]
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        collected = json.dumps({name: SECTIONS[name](place) for name in sections or SECTIONS})
    if output == "--write":
        write_record(json.loads(collected, parse_float=lambda text: float(f"{float(text):.8g}")))
    else:
        Path(output).write_text(collected)


if __name__ == "__main__":
    main()
