"""`report.html`: the evaluation as one file that needs no network, written from the files of its folder.

The policy in its head allows only the style and the script of the template, by SHA-256, and pictures of the folder; a
name that slipped through the escaping could still run nothing.
"""

import json
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError
from markupsafe import Markup

from vidtl.errors import UserError
from vidtl.evaluation import examples
from vidtl.evaluation.report import METRICS_FILE, percent
from vidtl.metrics import METRICS
from vidtl.runtime.files import printable, whole_file

PAGE = "report.html"

MAX_UNREADABLE = 2000
"""Unreadable videos listed; `unreadable.csv` has all."""

MAX_MATRIX = 40
"""Classes of a confusion matrix that is embedded; a larger one stays a file, to which the page links."""

MAX_NAME = 300


def write_page(folder: Path) -> Path:
    """Write `report.html` into the folder of an evaluation.

    Raises:
        UserError: the folder does not hold the files of an evaluation.
    """
    path = folder / METRICS_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        text = _environment().get_template("page.html.j2").render(_context(record, folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, TemplateError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path} cannot be read as the metrics of an evaluation: {reason}") from None
    with whole_file(folder / PAGE) as file:
        file.write(text)
    return folder / PAGE


def remove_page(folder: Path) -> None:
    """Remove the page and the examples of an earlier evaluation, before its other files are replaced."""
    (folder / PAGE).unlink(missing_ok=True)
    examples.remove_examples(folder)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vidtl.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value, MAX_NAME) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "digest": _digest}
    return environment


def _context(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    wide = record["num_classes"] > MAX_MATRIX
    figures = {name: _data_uri(folder / name) for name in ("reliability.png", "average_precision.png")}
    return {
        "record": record,
        "metrics": METRICS,
        "figures": figures | {"confusion.png": "" if wide else _data_uri(folder / "confusion.png")},
        "groups": _examples(folder),
        "unreadable": record["unreadable"][:MAX_UNREADABLE],
        "facts": _facts(record),
    }


def _digest(text: str) -> str:
    """Hash a style or script as a content security policy names it."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _data_uri(path: Path) -> Markup:
    """Encode a picture for an `img` element; empty where the file is missing."""
    if not path.is_file():
        return Markup()
    return Markup(f"data:image/{path.suffix[1:]};base64,{b64encode(path.read_bytes()).decode()}")


def _examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    index = folder / examples.FOLDER / examples.INDEX
    if not index.is_file():
        return {}
    groups: dict[str, list[dict[str, Any]]] = json.loads(index.read_text(encoding="utf-8"))
    for group in groups.values():
        for example in group:
            example["picture"] = _data_uri(index.with_name(examples.picture_name(example["number"])))
    return groups


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    model, settings = record.get("model", {}), record.get("settings", {})
    facts = {
        "Model": model.get("path"),
        "Step": model.get("step"),
        "Averaged weights": "yes" if model.get("averaged_weights") else None,
        "Fingerprint of the model": model.get("fingerprint"),
        "Annotation": record["annotation"],
        "Videos in": record["root"],
        "Protocol": f"{record['protocol']}: {record['num_clips']} clips x {record['num_crops']} crops",
        "Fusion of the views": record["fusion"],
        **settings,
        **{f"Version of {name}": version for name, version in record["versions"].items()},
    }
    return {name: value for name, value in facts.items() if value is not None}
