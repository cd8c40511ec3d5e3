"""YAML and JSON of unknown origin: one refusal for each, before memory or time is spent."""

import json
import os

import pytest

from tests.refusals import refused
from vidtl.config.documents import JSON_BYTES, parse_json, parse_yaml, read_json

JSON = (
    *("[" * 200_000, "[" * 65 + "]" * 65, '{"a":' * 100_000 + "1" + "}" * 100_000, '[{"a":' * 33 + "1" + "}]" * 33),
    *("9" * 6000, "9" * 101, '{"a": 1, "b": {"c": 1, "c": 2}}', "{", ""),
)
YAML = (
    *("a: " + "[" * 20_000, "a: " + "[" * 200 + "]" * 200, "".join(f"{' ' * i}a:\n" for i in range(200)), "a: ["),
    *("a: &b [1]\nc: *b", "a: !!python/object/apply:os.system [ls]", "a: !!int ''", "a: !!timestamp x"),
    *("a: 0x" + "f" * 5000, "a: " + "9" * 101, "a: 1" + ":1" * 100_000, "a: 2001-99-99", "a: 1\nb: {c: 1, c: 2}"),
    *("? [1]\n: 2", "a: \0"),
)


def test_documents_out_of_bounds_are_refused() -> None:
    for text in JSON:
        with refused("a.json: not valid JSON ("):
            parse_json(text, "a.json")
    for text in YAML:
        with pytest.raises(ValueError, match=r"\w"):
            parse_yaml(text)


def test_brackets_in_texts_and_wide_lists_are_no_levels() -> None:
    expected = {"a": "[{" * 1000, "b": [[1]] * 1000, "c": '"[', "d": -1500.0}
    text = json.dumps(expected)
    assert parse_json(text, "") == parse_json(text.encode("utf-16"), "") == parse_yaml(text) == expected


def test_only_small_regular_files_are_read(tmp_path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "proc").symlink_to("/proc/self/status")  # regular, of a stated size of 0
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b" " * (JSON_BYTES + 1))
    for name in ("link", "proc", "fifo", "large", "absent", "a\0b", "a" * 5000):
        with refused(name.rpartition("\0")[2]):
            read_json(tmp_path / name)
