"""The page's numbers and pictures, read from its text; `test_html_browser.py` opens it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from vidtl.evaluation.html import draw_pictures, example_indices, write_page
from vidtl.evaluation.html.examples import confidently_wrong, hardest
from vidtl.evaluation.html.names import MAX_LENGTH, visible
from vidtl.evaluation.html.pictures import FOLDER, read_pictures
from vidtl.evaluation.html.rows import class_rows, confusion_rows, matrix_data
from vidtl.metrics.classification import chance_levels, confusion_matrix, per_class_average_precision

from tests.evaluation.made_page import CLIP, made_page, made_result, made_videos, tiny_model
from vidtl.config import ExperimentConfig
from vidtl.data.protocols import get_protocol
from vidtl.evaluation.report import metrics_record
from vidtl.metrics.intervals import wilson


class Page(HTMLParser):
    """Ids, attributes of pictures, text outside scripts and styles, and the embedded data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text, self.data = "", ""
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if attributes.get("id") else []
        if tag == "img":
            self.images.append(attributes)
        self._inside = str(attributes.get("type") or tag) if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.data += data
        elif not self._inside:
            self.text += data


def test_names_show_what_would_turn_or_hide_text_and_keep_other_scripts():
    assert visible("video\u202e4pm.exe\x1b[2J\u2028\ud800\u200b") == r"video\u202e4pm.exe\x1b[2J\u2028\ud800\u200b"
    kept = "跑步, straße, می\u200cخواهم, 👩\u200d🚒 <b>"
    assert visible(kept) == kept
    assert len(visible("x" * 5000)) <= MAX_LENGTH + 3


@pytest.mark.parametrize("multi_label", [False, True])
def test_examples_are_those_that_sorting_by_hand_gives(multi_label):
    result = made_result(40, ["a", "b", "c", "d", "e"], multi_label, unreadable=(3, 11))
    probabilities, targets = result.probabilities, result.targets.astype(bool)
    readable = [i for i in range(40) if i not in (3, 11)]
    if multi_label:
        surest = {i: probabilities[i][~targets[i]].max() for i in readable}
    else:
        wrong = [i for i in readable if not targets[i, result.scores[i].argmax()]]
        surest = {i: probabilities[i].max() for i in wrong}
    first = sorted(surest, key=lambda i: -surest[i])[:4]
    assert [example.index for example in confidently_wrong(result)] == first
    lowest = {i: probabilities[i][targets[i]].min() for i in readable if i not in first}
    second = sorted(lowest, key=lambda i: lowest[i])[:4]
    assert [example.index for example in hardest(result, confidently_wrong(result))] == second
    assert example_indices(result) == [*first, *second]
    example = confidently_wrong(result)[0]
    assert {bar.name for bar in example.bars if bar.true} == {"abcde"[k] for k in np.flatnonzero(targets[first[0]])}
    assert example.bars[0].probability == probabilities[first[0]].max()


def test_nothing_is_chosen_where_no_video_could_be_read():
    result = made_result(3, ["a", "b"], unreadable=(0, 1, 2))
    assert example_indices(result) == []


def test_class_rows_count_and_judge_each_class():
    result = made_result(40, ["a", "b", "c", "d"], unreadable=(0,))
    counts = confusion_matrix(result.scores, result.targets)
    rows = class_rows(result, metrics_record(result))
    assert [row.name for row in rows] == ["a", "b", "c", "d"]
    for k, row in enumerate(rows[:3]):
        assert (row.videos, row.right) == (counts[k].sum(), counts[k, k])
        assert row.value == pytest.approx(counts[k, k] / counts[k].sum())
        assert row.interval == wilson(row.right, row.videos)[:2]
    assert (rows[3].videos, rows[3].value, rows[3].interval) == (0, None, None)
    mistakes = confusion_rows(counts, result.class_names)
    assert sum(row["count"] for row in mistakes) == counts[:, :4].sum() - np.trace(counts)
    data = matrix_data(counts, result.class_names)
    filled = np.zeros_like(counts)
    for row, column, count in data["cells"]:
        filled[row, column] = count
    np.testing.assert_array_equal(filled, counts)
    assert data["unreadable"]


def test_class_rows_of_several_labels_have_average_precision_and_its_chance():
    result = made_result(30, ["a", "b", "c", "d"], multi_label=True)
    rows = class_rows(result, metrics_record(result))
    expected = per_class_average_precision(result.scores, result.targets)
    assert [row.value for row in rows[:3]] == pytest.approx(expected[:3].tolist())
    assert np.mean([row.chance for row in rows[:3]]) == pytest.approx(chance_levels(result.targets, True)["mAP"])
    assert (rows[3].value, rows[3].chance) == (None, None)


@pytest.mark.parametrize("multi_label", [False, True])
def test_every_number_and_every_unreadable_video_is_on_the_page(tmp_path, multi_label):
    result = made_result(30, ["a", "b", "c"], multi_label, unreadable=(4, 9, 21))
    page = Page(made_page(result, tmp_path))
    text = " ".join(page.text.split())
    assert "30 videos annotated, 27 scored, 3 unreadable" in text
    for value in [*result.metrics.values(), *result.metrics_readable.values()]:
        assert np.isnan(value) or value.is_integer() or f"{100 * value:.2f}" in text
    for interval in metrics_record(result)["intervals"].values():
        assert interval["low"] is None or f"{100 * interval['low']:.1f} – {100 * interval['high']:.1f}" in text
    assert re.findall(r"video (\d+)\.mp4 moov atom not found", text) == ["4", "9", "21"]
    assert ("confusions" in page.ids) != multi_label
    assert {"result", "classes", "calibration", "videos", "unreadable", "account"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert multi_label or json.loads(page.data)["names"] == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_pages_of_the_smallest_sets_can_be_written(tmp_path):
    for number, result in enumerate(
        (
            made_result(1, ["a", "b"]),
            made_result(2, ["a", "b"], unreadable=(0, 1)),
            made_result(2, ["a", "b"], multi_label=True, unreadable=(0, 1)),
            replace(made_result(3, ["a", "b"]), fusion="max", max_videos=3),
        )
    ):
        assert "</html>" in made_page(result, tmp_path / str(number)).read_text()


@pytest.mark.parametrize("num_tokens", [0, 3, 5])
def test_pictures_of_readable_videos_with_and_without_token_learner(tmp_path, monkeypatch, num_tokens):
    monkeypatch.setattr("vidtl.evaluation.html.pictures.MAX_TOKENS", 4)
    records = made_videos(tmp_path, 3)
    (tmp_path / "1.mp4").write_bytes(b"not a video")
    model, config, protocol = tiny_model(num_tokens), ExperimentConfig(clip=CLIP), get_protocol("vivit_4x3")
    state = torch.get_rng_state()
    draw_pictures(model.train(), records, config, protocol, [0, 1, 2], tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    pictures = read_pictures(tmp_path)
    assert list(pictures) == [0, 2]
    for picture in pictures.values():
        rows = 2 if num_tokens else 1
        with Image.open(tmp_path / FOLDER / picture.frames) as frames:
            assert frames.size == (picture.width, picture.height(rows))
            assert np.asarray(frames.convert("RGB")).std() > 20
        assert len(picture.entropy) == num_tokens
        assert picture.num_steps == (4 if num_tokens else 8)
        if num_tokens:
            with Image.open(tmp_path / FOLDER / picture.tokens) as tokens:
                assert tokens.size == (picture.width, picture.height(min(num_tokens, 4)))
        else:
            assert picture.tokens == ""
    draw_pictures(model, records, config, protocol, [2], tmp_path)
    assert {path.name[:6] for path in (tmp_path / FOLDER).glob("*.webp")} == {"000002"}


def test_the_same_folder_gives_the_same_page_with_its_pictures(tmp_path):
    records, result = made_videos(tmp_path, 3), made_result(3, ["one", "two"])
    page = made_page(result, tmp_path / "evaluation", records)
    before = page.read_bytes()
    images = Page(page).images
    assert len(images) == 6
    assert all(image["alt"] and str(image["src"]).startswith("data:image/webp;base64,") for image in images)
    assert write_page(result, metrics_record(result), page.parent) == page
    assert page.read_bytes() == before


def test_pictures_stop_at_the_limit_and_the_page_says_so(tmp_path, monkeypatch):
    records, result = made_videos(tmp_path, 3), made_result(3, ["one", "two"])
    size = made_page(result, tmp_path / "evaluation", records).stat().st_size
    longest = max(len(str(image["src"])) for image in Page(tmp_path / "evaluation/report.html").images)
    monkeypatch.setattr("vidtl.evaluation.html.videos.MAX_PICTURE_BYTES", 2 * longest)
    page = made_page(result, tmp_path / "evaluation", records)
    assert page.stat().st_size < size
    assert len(Page(page).images) in (2, 4)
    assert "of 3 videos are shown without pictures" in Page(page).text
