"""Record what the tools do on small fixed inputs, to prove that a refactoring loses nothing.

python -m tests.snapshot.collect --write                 record anew: only for a change that is meant
python -m tests.snapshot.collect --output collected.json  what `test_snapshot.py` compares with the record
"""

import argparse
import json
import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("snapshot.json")


def collect(names: list[str]) -> dict[str, Any]:
    """Collect sections; one that fails says so in the place of its values and leaves the others alone."""
    from tests.snapshot.adapters import Workplace, prepare_process
    from tests.snapshot.sections import SECTIONS, SkippedError

    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    prepare_process()
    collected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        for name in names or SECTIONS:
            start = time.monotonic(), os.times()
            try:
                collected[name] = SECTIONS[name](place)
            except SkippedError as reason:
                collected[name] = {"skipped": str(reason)}
            except Exception:
                collected[name] = {"failed": traceback.format_exc()}
            now = os.times()
            cpu_s = sum(now[:4]) - sum(start[1][:4])
            print(f"{name:22} {time.monotonic() - start[0]:5.1f} s, {cpu_s:5.1f} s of CPU", flush=True)
    return collected


def rounded(value: Any) -> Any:
    """Cut numbers to eight digits, which is more than any comparison needs."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def write_record(collected: dict[str, Any]) -> None:
    """Write `snapshot.json`, a value per line; what could not be collected stays as it was recorded."""
    from tests.snapshot.compare import compact_configs

    failed = {name: values["failed"] for name, values in collected.items() if "failed" in values}
    if failed:
        raise SystemExit("\n".join(f"{name}: {text}" for name, text in failed.items()))
    before = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    record = before | {name: values for name, values in collected.items() if "skipped" not in values}
    record["configs"] = compact_configs(collected["configs"]) if "configs" in collected else before["configs"]
    text = ",\n".join(f'"{name}": {{\n{_lines(values)}\n}}' for name, values in sorted(record.items()))
    RECORD.write_text(f"{{\n{text}\n}}\n")


def _lines(section: dict[str, Any]) -> str:
    rows = []
    for key, value in section.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(rounded(item))}" for name, item in value.items())
            rows.append(f"{json.dumps(key)}: {{\n{inner}\n}}")
        else:
            rows.append(f"{json.dumps(key)}: {json.dumps(rounded(value))}")
    return ",\n".join(rows)


def main() -> None:
    """Collect, and write the record or another file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="only these, such as clips weights; default: all")
    parser.add_argument("--write", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument("--output", type=Path, help="write what was collected to this file")
    options = parser.parse_args()
    collected = collect(options.sections)
    if options.output:
        options.output.write_text(json.dumps(collected))
    if options.write:
        write_record(collected)


if __name__ == "__main__":
    main()
