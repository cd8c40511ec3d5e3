"""The page: its numbers and pictures, and in a real browser that names are inert and tables sort."""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.made_result import CLIP, made_report, made_result, made_videos, tiny_model
from tests.refusals import refused
from vidtl.config import ExperimentConfig
from vidtl.data.protocols import get_protocol
from vidtl.evaluation.page import confidently_wrong, draw_examples, hardest, remove_page, write_examples, write_page
from vidtl.evaluation.report import metrics_record

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font:UserWarning")

HOSTILE = (
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 2">',
    "</script><script>window.pwned = 3</script>",
    "</style><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "' onmouseover='window.pwned=5",
    "<!--<script>",
    "]]></svg><svg onload=window.pwned=7>",
    "turned \u202eround\u2066\u2028\x1b[31m\x00\ud800",
    "&lt;b&gt;",
    "x" * 5000,
    "<a href=https://example.org/>link</a><link rel=stylesheet href=https://example.org/a.css>",
)


@pytest.mark.parametrize("multi_label", [False, True])
def test_examples_are_those_of_sorting_by_hand(multi_label):
    result = made_result(40, ["a", "b", "c", "d", "e"], multi_label, unreadable=(3, 11))
    chances, targets = result.outcomes.probabilities, result.outcomes.targets
    readable = [i for i in range(40) if i not in (3, 11)]
    surest = {i: chances[i][~targets[i]].max() for i in readable}
    if not multi_label:
        surest = {i: chances[i].max() for i in readable if not targets[i, result.outcomes.scores[i].argmax()]}
    first = sorted(surest, key=lambda i: -surest[i])[:4]
    assert confidently_wrong(result) == first
    lowest = {i: chances[i][targets[i]].min() for i in readable if i not in first}
    assert hardest(result, first) == sorted(lowest, key=lambda i: lowest[i])[:4]
    nothing = made_result(3, ["a", "b"], multi_label, unreadable=(0, 1, 2))
    assert confidently_wrong(nothing) == hardest(nothing, []) == []


@pytest.mark.parametrize("multi_label", [False, True])
def test_every_number_and_every_unreadable_video_is_on_the_page(tmp_path, multi_label):
    result = made_result(40, ["a", "b", "c"], multi_label, unreadable=(4, 9, 21))
    page = made_report(result, tmp_path)
    text, record = " ".join(unescape(re.sub("<[^>]+>", " ", page.read_text())).split()), metrics_record(result)
    assert "40 videos annotated, 37 scored, 3 unreadable" in text
    losses = [record[group].pop("loss") for group in ("metrics", "metrics_readable")]
    assert all(f"{loss:.4f}" in text for loss in losses)
    for value in [*record["metrics"].values(), *record["metrics_readable"].values(), *record["chance"].values()]:
        assert value is None or f"{100 * value:.2f}%" in text
    for interval in record["intervals"].values():
        assert interval["low"] is None or f"{100 * interval['low']:.2f}% – {100 * interval['high']:.2f}%" in text
    assert re.findall(r"video (\d+)\.mp4 moov atom not found", text) == ["4", "9", "21"]
    assert text.count("(true)") >= 8


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("unreadable", [(), (0,)])
def test_pages_of_the_smallest_sets_can_be_written(tmp_path, multi_label, unreadable):
    result = made_result(1, ["a", "b"], multi_label, unreadable, max_videos=1)
    assert "</html>" in made_report(result, tmp_path).read_text()


@pytest.mark.parametrize("num_tokens", [0, 3])
def test_pictures_of_readable_videos(tmp_path, num_tokens):
    records, result = made_videos(tmp_path, 3), made_result(3, ["one", "two"])
    page = made_report(result, tmp_path / "evaluation")
    before = page.read_text().count("data:image")
    (tmp_path / "1.mp4").write_bytes(b"not a video")
    model, config, protocol = tiny_model(num_tokens).train(), ExperimentConfig(clip=CLIP), get_protocol("vivit_4x3")
    numbers, state = write_examples(result, page.parent), torch.get_rng_state()
    draw_examples(model, records, config, protocol, numbers, page.parent)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    pictures = sorted((page.parent / "examples").glob("*.webp"))
    assert [path.name for path in pictures] == ["000000.webp", "000002.webp"]
    with Image.open(pictures[0]) as picture:
        assert min(picture.size) > 300
        assert np.asarray(picture.convert("RGB")).std() > 20
    text = write_page(page.parent).read_text()
    assert text.count("data:image") == before + 2
    assert write_page(page.parent).read_text() == text  # from files alone
    remove_page(page.parent)
    assert not list((page.parent / "examples").iterdir())
    assert not page.exists()


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with refused(tmp_path, "metrics.json"):
        write_page(tmp_path)
    record = metrics_record(made_result(6, ["a", "b"]))
    del record["chance"]
    for content, named in (({}, "is missing"), ([], "metrics.json"), (record, "chance")):
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        with refused(tmp_path, named):
            write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package to drive a browser")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("needs chromium on the PATH")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable)
        yield running
        running.close()


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_narrow_page_scrolls_tables_only_and_breaks_no_short_word(browser, tmp_path, multi_label):
    result = made_result(40, ["x" * 300, "class 10", *"abcdef"], multi_label, unreadable=(2,))
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(made_report(result, tmp_path).as_uri())
    colors = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.evaluate("Math.min(...Array.from(document.querySelectorAll('th'), e => e.clientWidth))") > 40
        colors.add(page.evaluate("getComputedStyle(document.querySelector('.true td')).color"))
    assert len(colors) == 2  # one blue is not legible on both


def test_in_a_browser_names_are_inert_and_tables_sort(browser, tmp_path):
    names = [*HOSTILE, "class 10", "class 9", "no videos"]
    ids = [f"{names[i % 15]}{i}" for i in range(90)]
    path = made_report(made_result(90, names, unreadable=(2, 7), ids=ids), tmp_path)
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    shown = page.locator("#classes tbody th").all_inner_texts()
    assert shown[:5] == list(HOSTILE[:5])
    assert shown[8] == r"turned \u202eround\u2066\u2028\x1b[31m\x00\ud800"
    assert shown[9] == "&lt;b&gt;"
    assert (page.locator("script").count(), page.locator("style").count()) == (1, 1)
    assert page.locator("body a[href^=http], body link, img[src=x]").count() == 0

    def sorted_by(number: int) -> list[str]:
        page.locator("#classes th button").nth(number).click()
        return [row.locator("th, td").nth(number).inner_text() for row in page.locator("#classes tbody tr").all()]

    *falling, last = sorted_by(3)
    assert last == "none"  # the class without videos
    numbers = [float(value.removesuffix("%")) for value in falling]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) > 3
    *rising, last = sorted_by(3)
    assert (rising, last) == (sorted(falling, key=lambda value: float(value.removesuffix("%"))), "none")
    shown = sorted_by(0)
    assert shown.index("class 9") < shown.index("class 10") < shown.index("no videos")
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert complaints == []
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'pwned = 1'}))")
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert "Content Security Policy" in complaints[0]
