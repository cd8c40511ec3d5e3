"""The page in a real browser: nothing fetched, nothing of a stranger's name run, tables sorted, no line too long."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.made_page import made_page, made_result, made_videos

playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package to drive a browser")

HOSTILE = (
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 2">',
    "</script><script>window.pwned = 3</script>",
    "</style><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:window.pwned=4",
    "' onmouseover='window.pwned=5",
    "\\u003cscript>window.pwned=6</script>",
    "<!--<script>",
    "]]></svg><svg onload=window.pwned=7>",
    "turned \u202eround\u2066\u2028\x1b[31m\x00\ud800",
    "&lt;b&gt;",
    "x" * 5000,
    "<a href=https://example.org/>link</a><link rel=stylesheet href=https://example.org/a.css>",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("needs chromium on the PATH")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable)
        yield running
        running.close()


class Opened:
    """A page with everything that it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def fetched(self) -> list[str]:
        """Every request that left the file."""
        return [url for url in self.requests if not url.startswith("data:")][1:]

    def column(self, number: int) -> list[str]:
        rows = self.page.locator("#class-table tbody tr:visible")
        return [row.locator("th, td").nth(number).inner_text().strip() for row in rows.all()]


def check_quiet_and_narrow(browser: Any, path: Path) -> None:
    for width in (1280, 390):
        opened = Opened(browser, path, width)
        assert opened.fetched() == []
        assert opened.complaints == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        opened.page.close()


@pytest.mark.parametrize(
    ("num_classes", "num_videos", "multi_label"), [(2, 9, False), (400, 1200, False), (157, 300, True)]
)
def test_pages_of_any_number_of_classes_fetch_nothing_and_fit_the_window(
    browser, tmp_path, num_classes, num_videos, multi_label
):
    names = [f"class number {k}" for k in range(num_classes)]
    path = made_page(made_result(num_videos, names, multi_label, unreadable=(0, 5)), tmp_path)
    assert path.stat().st_size < 1_000_000
    check_quiet_and_narrow(browser, path)


@pytest.mark.parametrize("num_tokens", [0, 4])
def test_pictures_are_decoded_and_described(browser, tmp_path, num_tokens):
    records = made_videos(tmp_path, 4)
    path = made_page(made_result(4, ["one", "two"]), tmp_path / "evaluation", records, num_tokens)
    opened = Opened(browser, path)
    opened.page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    opened.page.eval_on_selector_all("img", "all => Promise.all(all.map(one => one.decode()))")
    sizes = opened.page.eval_on_selector_all(
        "img", "all => all.map(i => [i.naturalWidth, i.clientWidth, i.alt.length])"
    )
    assert len(sizes) == (8 if num_tokens else 4)
    assert all(min(size) > 10 for size in sizes)
    assert opened.complaints == []
    check_quiet_and_narrow(browser, path)


@pytest.mark.parametrize("multi_label", [False, True])
def test_names_of_strangers_run_nothing_and_are_shown_as_they_are(browser, tmp_path, multi_label):
    ids = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(28)]
    result = made_result(28, HOSTILE, multi_label, unreadable=(2, 7), ids=ids)
    path = made_page(result, tmp_path)
    opened = Opened(browser, path)
    page = opened.page
    for element in page.locator("#class-table tr, h4, #unreadable td").all():
        element.dispatch_event("mouseover")
    assert page.evaluate("typeof window.pwned") == "undefined"
    shown = page.locator("#class-table tbody th").all_inner_texts()
    assert shown[:2] == list(HOSTILE[:2])
    assert shown[4] == "{{ 7 * 7 }}{% raw %}"
    assert shown[10] == r"turned \u202eround\u2066\u2028\x1b[31m\x00\ud800"
    assert shown[11] == "&lt;b&gt;"
    assert page.locator("script").count() == (1 if multi_label else 2)
    assert page.locator("style").count() == 1
    assert page.locator("body a[href^=http], body link, img[src=x]").count() == 0
    assert page.locator("#unreadable tbody td").first.inner_text().startswith(HOSTILE[2])
    check_quiet_and_narrow(browser, path)


def test_the_policy_stops_what_escaping_would_have_missed(browser, tmp_path):
    opened = Opened(browser, made_page(made_result(4, ["one", "two"]), tmp_path))
    opened.page.evaluate(
        """async () => {
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            document.body.append(script);
            const div = document.createElement("div");
            div.innerHTML = '<img src="https://example.org/x.png">' +
                '<b onclick="window.pwned = 2" style="color: red">x</b>';
            document.body.append(div);
            div.querySelector("b").click();
            await fetch("https://example.org/").catch(() => {});
        }"""
    )
    assert opened.page.evaluate("typeof window.pwned") == "undefined"
    assert opened.page.evaluate("getComputedStyle(document.querySelector('div > b')).color") != "rgb(255, 0, 0)"
    assert sum("Content Security Policy" in complaint for complaint in opened.complaints) >= 4


def test_clicks_and_keys_sort_the_classes(browser, tmp_path):
    names = [f"class {k}" for k in (10, 9, 2, 1)] + [f"other {k}" for k in range(12)]
    opened = Opened(browser, made_page(made_result(200, names), tmp_path))
    buttons = opened.page.locator("#class-table th button")
    header = opened.page.locator("#class-table th").nth(3)
    buttons.nth(3).click()
    values = opened.column(3)
    assert values[-1] == "–"  # the class without videos
    assert values[:-1] == sorted(values[:-1], key=float, reverse=True)
    assert len(set(values)) > 3
    assert header.get_attribute("aria-sort") == "descending"
    buttons.nth(3).focus()
    opened.page.keyboard.press("Enter")
    assert opened.column(3)[:-1] == sorted(values[:-1], key=float)
    assert opened.column(3)[-1] == "–"
    assert header.get_attribute("aria-sort") == "ascending"
    buttons.nth(0).click()
    assert opened.column(0)[:4] == ["class 1", "class 2", "class 9", "class 10"]
    assert header.get_attribute("aria-sort") == "none"
    opened.page.fill("#find", "CLASS")
    assert opened.column(0) == ["class 1", "class 2", "class 9", "class 10"]
    assert opened.page.input_value("#find") == "CLASS"
    assert opened.page.inner_text("#found") == "4 of 16"
    assert opened.complaints == []


def test_the_matrix_names_its_cells_to_pointer_and_keys_and_zooms(browser, tmp_path):
    names = [f"class {k}" for k in range(40)]
    opened = Opened(browser, made_page(made_result(400, names, unreadable=(0,)), tmp_path))
    page = opened.page
    canvas, cell = page.locator("#matrix"), page.locator("#cell")
    hint = cell.inner_text()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 60, box["y"] + box["height"] - 60)
    assert cell.inner_text().startswith("True: class ")
    assert " of 10 videos" in cell.inner_text() or " of 11 videos" in cell.inner_text()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    assert cell.inner_text() == hint
    canvas.focus()
    page.keyboard.press("ArrowRight")
    assert cell.inner_text().startswith("True: class 0. Answer: class 0. ")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert cell.inner_text().startswith("True: class 1. Answer: class 2. ")
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)
    before = page.evaluate("document.getElementById('matrix').toDataURL()")
    page.click("#zoom-in")
    zoomed = page.evaluate("document.getElementById('matrix').toDataURL()")
    page.click("#zoom-all")
    assert before != zoomed
    assert page.evaluate("document.getElementById('matrix').toDataURL()") == before
    page.select_option("#order", "errors")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    first = cell.inner_text().removeprefix("True: ").partition(".")[0]
    most = page.evaluate(
        """() => {
            const { cells, names } = JSON.parse(document.getElementById("matrix-data").textContent);
            const errors = names.map(() => 0);
            for (const [row, column, count] of cells) errors[row] += row === column ? 0 : count;
            return names[errors.indexOf(Math.max(...errors))];
        }"""
    )
    assert first == most
    assert opened.complaints == []
