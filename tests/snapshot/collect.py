"""Record the results of the tools on small fixed inputs.

python -m tests.snapshot.collect --output collected.json [sections]   values that test_snapshot.py compares
python -m tests.snapshot.collect --write [sections]                   new record; only for an intended change
"""

import argparse
import json
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("snapshot.json")


def collect(names: list[str]) -> dict[str, Any]:
    """Collect sections by name; a section that fails has its traceback under `failed`."""
    from tests.snapshot.sections import SECTIONS, SkippedError
    from tests.snapshot.workplace import Workplace, prepare_process

    prepare_process()
    collected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        for name in names or SECTIONS:
            start = time.monotonic()
            try:
                collected[name] = SECTIONS[name](place)
            except SkippedError as reason:
                collected[name] = {"skipped": str(reason)}
            except Exception:
                collected[name] = {"failed": traceback.format_exc()}
            print(f"{name:22} {time.monotonic() - start:5.1f} s", flush=True)
    return collected


def rounded(value: Any) -> Any:
    """Round numbers to eight digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def write_record(collected: dict[str, Any]) -> None:
    """Replace sections of `snapshot.json`, one value per line; skipped sections stay as recorded."""
    record = json.loads(RECORD.read_text())
    for name, values in collected.items():
        if "failed" in values:
            raise SystemExit(f"{name}: {values['failed']}")
        if "skipped" not in values:
            record[name] = values
    texts = (f'"{name}": {{\n{_lines(values, 1)}\n}}' for name, values in sorted(record.items()))
    RECORD.write_text("{\n" + ",\n".join(texts) + "\n}\n")


def _lines(section: dict[str, Any], depth: int) -> str:
    return ",\n".join(
        f"{json.dumps(key)}: {{\n{_lines(value, depth - 1)}\n}}"
        if depth and isinstance(value, dict)
        else f"{'' if depth else '  '}{json.dumps(key)}: {json.dumps(rounded(value))}"
        for key, value in section.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="such as clips weights; default: all")
    parser.add_argument("--write", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument("--output", type=Path, help="JSON file of the collected values")
    options = parser.parse_args()
    collected = collect(options.sections)
    if options.output:
        options.output.write_text(json.dumps(collected))
    if options.write:
        write_record(collected)


if __name__ == "__main__":
    main()
