"""Strict reading of files: mistakes name file, line, key, value and alternatives."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from study_table import StudyConfig

from tests.refusals import refused
from vidtl.annotations.description import DatasetDescription
from vidtl.config import ExperimentConfig
from vidtl.config.documents import YAML_BYTES
from vidtl.config.load import Document, from_document, leaves, load
from vidtl.errors import UserError
from vidtl.models.directory import SavedConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    width: int = 4
    mode: Literal["cut", "keep"] = "cut"


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    values: list[int] = field(default_factory=list)
    options: dict[str, bool | int | float | str | list[int] | list[float] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise UserError("name is 'bad'; allowed: another")


@dataclass(frozen=True, kw_only=True)
class File:
    title: str = "none"
    share: float = 0.5
    size: tuple[int, int] = (1, 2)
    words: tuple[str, ...] = ()
    limit: int | None = None
    stage: Stage = field(default_factory=lambda: Stage(width=9))
    rows: list[Row] = field(default_factory=list)
    rows_by_name: dict[str, Row] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.yaml"


def test_every_kind_of_value_is_read(path: Path) -> None:
    path.write_text(
        "title: 400\nshare: 1\nsize: [3, 4]\nwords: one\nlimit: null\nstage: {mode: keep}\n"
        "rows:\n  - {name: a, values: [1], options: {a.b: [1, 2], c: [1, 0.5], d: true, e: null, f: 1e-3, g: no}}\n"
        "rows_by_name: {yes: {name: 7}}\ncounts: {a: null, b: 2}\n"
    )
    found = load(path, File)
    options = {"a.b": [1, 2], "c": [1.0, 0.5], "d": True, "e": None, "f": 0.001, "g": False}
    assert found == File(
        title="400",
        share=1.0,
        size=(3, 4),
        words=("one",),
        stage=Stage(width=9, mode="keep"),  # the section's own default, not that of its class
        rows=[Row(name="a", values=[1], options=options)],
        rows_by_name={"yes": Row(name="7")},
        counts={"b": 2},
    )
    path.write_text("# all defaults\n")
    assert load(path, File) == File()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stage: {width: 2}\ntitle: a\nstage: {width: 3}\n", ("line 3", "'stage'", "twice")),
        ("title: 2026-12-05\n", (":1", "title", "2026", "str")),
        ("--- {}\n--- {}\n", ("not a YAML file",)),
        ("\n\nstage.width: 5\n", (":3", "'stage.width'", "section")),
        ("stage: 5\n", (":1", "stage", "5", "section")),
        ("title: a\nstage:\n  widht: 5\n", (":3", "'stage.widht'", "'stage.width'")),
        ("stage: {mode: kep}\n", (":1", "stage.mode", "'kep'", "'keep'")),
        ("stage: {width: 1.5}\n", (":1", "stage.width", "1.5", "int")),
        ("stage: {width: true}\n", (":1", "stage.width", "True", "int")),
        ("share: .inf\n", (":1", "share", "inf", "float")),
        ("size: [1]\n", (":1", "size", "[1]", "tuple[int, int]")),
        ("limit: many\n", (":1", "limit", "'many'", "int | null")),
        ("rows:\n  - name: a\n  - nam: b\n", (":3", "'rows.1.nam'", "'rows.1.name'")),
        ("rows:\n  - {name: a}\n  - {values: [1]}\n", (":3", "rows.1.name", "missing")),
        ("rows: [{name: a, options: {b: [x]}}]\n", (":1", "rows.0.options.b", "['x']")),
        ("rows_by_name:\n  x: {name: bad}\n", (":2", "rows_by_name.x.name", "'bad'")),
        ("rows:\n  - {name: null}\n", (":2", "rows.0.name", "missing")),
        ("size: [1, null]\n", (":1", "size", "[1, None]")),
        ("stage: {widht: null}\n", (":1", "'stage.widht'", "'stage.width'")),
    ],
)
def test_mistakes_name_the_place(path: Path, text: str, parts: tuple[str, ...]) -> None:
    path.write_text(text)
    with refused(path, *parts):
        load(path, File)


@pytest.mark.parametrize(
    ("kind", "required"),
    [
        (File, {}),
        (ExperimentConfig, {}),
        (DatasetDescription, {"format": "path_list", "labels": "multi", "splits": {}}),
        (SavedConfig, {"model": {}, "clip": {}, "num_outputs": 1}),
        (StudyConfig, {"title": "a", "experiment": "b", "rows": [{"name": "c", "options": {}, "seeds": [1]}]}),
    ],
)
def test_null_means_the_default_of_a_key_or_section(path: Path, kind: type, required: dict[str, Any]) -> None:
    keys = leaves(kind)
    sections = {key[:place] for key in keys for place, letter in enumerate(key) if letter == "."}
    for key in {*keys, *sections}:
        content: Any = None
        for name in reversed(key.split(".")):
            content = {name: content}
        path.write_text(yaml.safe_dump({**required, **content}))
        if key in required:
            with refused(path, key, "missing"):
                load(path, kind)
        else:
            assert load(path, kind) == from_document(kind, Document(required)), key


def test_files_that_are_missing_or_too_large(path: Path) -> None:
    with refused(path, "does not exist"):
        load(path, File)
    path.write_text("title: " + "x" * YAML_BYTES)
    with refused(path, path.stat().st_size, YAML_BYTES):
        load(path, File)
    path.write_bytes(b"title: \xff\n")
    with refused(path, "UTF-8"):
        load(path, File)


def test_parsed_json_is_read_as_strictly(path: Path) -> None:
    content = json.loads('{"stage": {"width": 2}, "size": [1, 2]}')
    assert from_document(File, Document(content, "config.json")) == File(stage=Stage(width=2))
    for wrong, parts in (({"stag": {}}, "'stag' 'stage'"), ([1], "top level [1]"), ({"size": ["1", 2]}, "size '1'")):
        with refused("config.json", *parts.split()):
            from_document(File, Document(wrong, "config.json"))
