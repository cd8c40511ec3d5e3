"""Figures open, are not blank, take hostile names, and replace files whole."""

import json
import math
from functools import cache

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from tests.metrics.made_outcomes import random_outcomes
from vidtl import visualize
from vidtl.visualize import classes, label_text
from vidtl.visualize.classes import draw_average_precision, draw_confusion, draw_reliability
from vidtl.visualize.curves import draw_curves, running_mean

HOSTILE = ["=1+1", "$\\frac{", "a\nb\x1b[31m", "<script>", "a" * 300, "50% $ & $ more", "", "_^{"]


def pixels(path):
    """RGB of a PNG; also checks that something is drawn and nothing else lies beside it."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        array = np.asarray(image.convert("RGB"))
    assert len(np.unique(array.reshape(-1, 3), axis=0)) > 10
    assert not list(path.parent.glob("*.tmp"))
    return array


@pytest.mark.parametrize("num_classes", [1, 8])
def test_confusion_of_few_classes_with_hostile_names(tmp_path, num_classes):
    counts, found = np.eye(num_classes, num_classes + 1, dtype=np.int64) * 5, []
    for unreadable in (0, 3):
        counts[:, -1] = unreadable
        draw_confusion(counts, HOSTILE[:num_classes], tmp_path / "confusion.png", "$\\frac{ title")
        found.append(pixels(tmp_path / "confusion.png"))
    assert not np.array_equal(*found)


def test_confusion_of_many_classes_names_each_and_leaves_out_the_best(tmp_path, monkeypatch):
    counts = np.eye(60, 61, dtype=np.int64) * 5
    counts[:50, -1] = 1
    names = [HOSTILE[i % 7] for i in range(60)]
    draw_confusion(counts, names, tmp_path / "all.png", "many")
    assert min(pixels(tmp_path / "all.png").shape[:2]) > 60 * classes.CELL_PX
    monkeypatch.setattr(classes, "MAX_CLASSES", 40)
    draw_confusion(counts, names, tmp_path / "some.png", "many")
    assert pixels(tmp_path / "some.png").shape[0] == pixels(tmp_path / "all.png").shape[0] - 20 * classes.CELL_PX


def test_reliability_diagrams_with_and_without_videos(tmp_path):
    for count in (0, 30):
        draw_reliability(random_outcomes(1, count, 4, True).calibration, tmp_path / f"{count}.png", "$")
    assert not np.array_equal(pixels(tmp_path / "0.png"), pixels(tmp_path / "30.png"))


@pytest.mark.parametrize("num_classes", [1, 15])
def test_average_precision_bars(tmp_path, monkeypatch, num_classes):
    monkeypatch.setattr(classes, "MAX_BARS", 10)
    outcomes = random_outcomes(2, 50, num_classes, True)
    outcomes.targets[:, 0] = False
    draw_average_precision(outcomes, (HOSTILE * 2)[:num_classes], tmp_path / "ap.png", "title")
    assert pixels(tmp_path / "ap.png").shape[0] > 100


@pytest.fixture
def one_font(tmp_path, monkeypatch):
    """Install a font with a square for one character, and no other: that character."""
    builder = FontBuilder(1000)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder.setupGlyphOrder([".notdef", "run"])
    builder.setupCharacterMap({ord("跑"): "run"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "run": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "run": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "One Glyph", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if "DejaVu" in font.name])
    fontManager.addfont(tmp_path / "one.ttf")
    for function in (visualize._installed, visualize._family):
        function.cache_clear()
        monkeypatch.setattr(visualize, function.__name__, cache(function.__wrapped__))
    return "跑"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [2, 40])
def test_names_are_drawn_with_an_installed_font_or_as_escapes(tmp_path, one_font, num_classes):
    assert label_text(f"{one_font} 步 🏃 مشي नम") == f"{one_font} \\u6b65 \\U0001f3c3 مشي \\u0928\\u092e"
    found = []
    for name in (one_font, "步", "\\u6b65"):
        counts = np.eye(num_classes, num_classes + 1, dtype=np.int64)
        draw_confusion(counts, [f"{name} run"] * num_classes, tmp_path / "confusion.png", name)
        found.append(pixels(tmp_path / "confusion.png"))
    assert found[0].shape != found[1].shape
    np.testing.assert_array_equal(found[1], found[2])


def training_lines(count):
    return [{"step": s, "epoch": s / 10, "loss": 3 / s, "learning_rate": 1e-3} for s in range(1, count + 1)]


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("count", [0, 1, 100])
def test_curves_of_any_length(tmp_path, count):
    lines = training_lines(count)
    lines += [{"step": s, "epoch": s / 10, "split": "val", "top1": 0.5, "top5": None} for s in range(10, count, 10)]
    draw_curves(write(tmp_path / "metrics.jsonl", lines), tmp_path / "curves.png", {"top1": 0.25, "mAP": math.nan})
    assert pixels(tmp_path / "curves.png").shape[1] == 900


def test_running_mean_is_the_mean_of_what_is_finite():
    losses = np.random.default_rng(0).random(100)
    expected = [losses[max(0, i - 7) : i + 8].mean() for i in range(100)]
    np.testing.assert_allclose(running_mean(losses, 7), expected, rtol=1e-12)
    losses[[50, 52]] = math.nan, math.inf
    smooth = running_mean(losses, 7)
    np.testing.assert_allclose(smooth[:43], expected[:43], rtol=1e-12)
    np.testing.assert_allclose(smooth[60:], expected[60:], rtol=1e-12)
    assert smooth[50] == pytest.approx(losses[[*range(43, 50), 51, *range(53, 58)]].mean())
    np.testing.assert_array_equal(running_mean([1.0, math.nan, 3.0], 0), [1, math.nan, 3])
    np.testing.assert_array_equal(running_mean([1.0, 1e18, 1.0, 1.0, 1.0], 1)[3:], [1, 1])


def test_curves_take_the_last_of_repeated_steps_and_show_chance(tmp_path):
    lines = [*training_lines(8), {"step": 4, "epoch": 0.4, "split": "val", "mAP": 0.3}]
    stale = [{"step": 5, "epoch": 0.5, "loss": 1e6, "learning_rate": 9.0}, {"step": 4, "split": "val", "mAP": 0.9}]
    clean, resumed = write(tmp_path / "clean.jsonl", lines), write(tmp_path / "resumed.jsonl", stale + lines)
    for number, (source, chance) in enumerate([(clean, {}), (resumed, {}), (clean, {"mAP": 0.1})]):
        draw_curves(source, tmp_path / f"{number}.png", chance)
    first, again, with_chance = (pixels(tmp_path / f"{number}.png") for number in range(3))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, with_chance)


def test_labels_fit_one_line_and_are_no_formulas():
    for shown in map(label_text, HOSTILE):
        assert shown.isprintable()
        assert len(shown.replace("\\$", "$")) <= 36
        assert shown.count("$") == shown.count("\\$")
