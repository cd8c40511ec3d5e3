"""The picture of a timeline: rows, thumbnails and labels of short and long files, and events of a single cell."""

import numpy as np
import pytest

from tests.video.conftest import read
from tests.visualize.test_figures import HOSTILE, pixels
from vidtl.video import open_video
from vidtl.visualize import label_text, timeline
from vidtl.visualize.timeline import MAX_ROWS, NUM_THUMBNAILS, draw_timeline


@pytest.fixture
def figures(monkeypatch):
    found, save = [], timeline.save_figure
    monkeypatch.setattr(timeline, "save_figure", lambda figure, path: (found.append(figure), save(figure, path)))
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "num_classes", "duration_s", "labels"),
    [
        ("media__sample_rotate_and_reflect.mp4", 2, 1.0, ["0 s", "0.1 s", "1 s"]),
        ("sam2__05_default_juggle.mp4", 8, 95.0, ["00:00", "00:10", "01:30"]),
        ("absent.mp4", 400, 7200.0, ["0:00:00", "0:10:00", "2:00:00"]),
    ],
)
def test_classes_over_time(shared_data, tmp_path, figures, name, num_classes, duration_s, labels):
    names = [*HOSTILE[:7], "跑步 🏃", *map(str, range(num_classes))][:num_classes]
    edges = np.linspace(0, duration_s * 0.9, 20_001)
    probabilities = np.full((20_000, num_classes), 1e-3)
    probabilities[5_003, -1], probabilities[-2_000:] = 0.9, np.nan
    segments = [(names[-2], duration_s / 2, duration_s, 0.5)]
    draw_timeline(shared_data / "videos" / name, tmp_path / "t.png", names, duration_s, edges, probabilities, segments)
    assert pixels(tmp_path / "t.png").shape[1] == 1200
    rows, *thumbnails = figures[0].axes
    assert len(thumbnails) == (0 if name == "absent.mp4" else NUM_THUMBNAILS)
    ticks = [label.get_text() for label in rows.get_xticklabels()]
    assert [ticks[0], ticks[1], ticks[-1]] == labels
    drawn = [text.get_text() for text in rows.texts]
    assert len(drawn) == len(rows.images) == min(num_classes, MAX_ROWS)
    assert drawn[:2] == [label_text(names[-2], 100), label_text(names[-1], 100)]
    event = rows.images[1].get_array().filled(np.nan)[0]
    assert [*np.flatnonzero(event == 0.9)] == [5_003 * len(event) // 20_000]
    assert np.isnan(event).mean() == pytest.approx(0.1, abs=2e-3)


def test_thumbnails_are_frames_above_their_times(shared_data, tmp_path, figures):
    path = shared_data / "videos" / "ExoPlayer__sample.avi"
    with open_video(path) as video:
        times_s = video.times_s
    draw_timeline(path, tmp_path / "t.png", ["a"], 4.0, np.array([0.0, 4]), np.ones((1, 1)), [])
    rows, *thumbnails = figures[0].axes
    for axes in thumbnails:
        x = (axes.get_position().x0 + axes.get_position().x1) / 2
        time_s = rows.transData.inverted().transform(figures[0].transFigure.transform((x, 0)))[0]
        frame = axes.images[0].get_array()
        expected = read(path, [np.abs(times_s - time_s).argmin()], frame.shape[:2])[0]
        np.testing.assert_array_equal(frame, expected)
        assert frame.shape[1] / frame.shape[0] == pytest.approx(960 / 400, rel=0.02)
