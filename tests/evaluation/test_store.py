"""Interrupted evaluations: nothing scored twice, nothing of another one mixed in, and the same bits at the end."""

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.test_evaluator import NotedProgress
from tests.evaluation.tiny_evaluation import NUM_CLASSES, make_records, read_views, run
from tests.refusals import refused
from vidtl.evaluation.evaluator import ScoreStore
from vidtl.evaluation.scoring import Scores, fixed_batches

RECORDS = make_records(11, False)
BROKEN = (2, 8)


class KilledError(Exception):
    """Stands for SIGKILL."""


def store(folder: Path, key: str = "a") -> ScoreStore:
    return ScoreStore(folder / "partial", {"key": key}, NUM_CLASSES)


def run_on(folder: Path, opened: list[int], key: str = "a", broken=(), last: int | None = None, **options):
    """Evaluate and note the opened records; raise KilledError at record `last`."""

    def read(indices):
        for video in read_views(RECORDS, broken, indices):
            if video.index == last:
                raise KilledError
            opened.append(video.index)
            yield video

    return run(RECORDS, make_loader=read, store=store(folder, key), **options)


def test_no_video_is_opened_twice_and_every_bit_is_the_same(tmp_path):
    whole = run(RECORDS)
    opened: list[int] = []
    for last in (3, 7, 10):
        with pytest.raises(KilledError):
            run_on(tmp_path, opened, last=last)
    progress = NotedProgress()
    result = run_on(tmp_path, opened, progress=progress)
    assert opened == list(range(11))  # batches of one video here
    assert (progress.before, progress.done[-1], progress.total) == (10, 11, 11)
    np.testing.assert_array_equal(result.outcomes.scores, whole.outcomes.scores)
    assert result.metrics == whole.metrics
    again = run_on(tmp_path, opened)  # finished, without a report
    assert opened == list(range(11))
    np.testing.assert_array_equal(again.outcomes.scores, whole.outcomes.scores)
    store(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("still_broken", [(), (8,), BROKEN])
def test_batches_with_unreadable_videos_are_scored_again(tmp_path, still_broken):
    with pytest.raises(KilledError):
        run_on(tmp_path, [], last=10, broken=BROKEN)
    opened: list[int] = []
    result = run_on(tmp_path, opened, broken=still_broken)
    assert opened == [2, 8, 10]
    whole = run(RECORDS, still_broken)
    np.testing.assert_array_equal(result.outcomes.scores, whole.outcomes.scores)
    assert result.metrics == whole.metrics
    assert result.unreadable == whole.unreadable


def test_scores_of_another_key_are_not_used_and_stay(tmp_path, caplog):
    with pytest.raises(KilledError):
        run_on(tmp_path, [], "other checkpoint", last=10)
    opened: list[int] = []
    run_on(tmp_path, opened)
    assert sorted(opened) == list(range(11))
    with caplog.at_level(logging.INFO):
        store(tmp_path).remove()
    (left,) = (tmp_path / "partial").iterdir()
    assert left == store(tmp_path, "other checkpoint").folder
    assert str(left) in caplog.text


@pytest.mark.parametrize("cut", [2, 30, 200])
def test_torn_lines_are_scored_again(tmp_path, cut):
    whole = run_on(tmp_path, [])
    (file,) = store(tmp_path).folder.iterdir()
    file.write_bytes(file.read_bytes()[:-cut] + b"\0\n[3]\n{}\n[1, [[1.0]]]\n")
    opened: list[int] = []
    again = run_on(tmp_path, opened)
    assert 0 < len(opened) < 11
    np.testing.assert_array_equal(again.outcomes.scores, whole.outcomes.scores)


def test_batches_of_another_size_are_not_used(tmp_path):
    rows = {number: np.full(NUM_CLASSES, float(number)) for number in range(4)}
    written = store(tmp_path)
    launch, _ = written.read([])
    with written.writer(launch, 0) as append, refused("000-0000.jsonl"):
        append(Scores(rows))
        written.writer(launch, 0).__enter__()  # of another evaluation into the same folder
    assert not written.read(fixed_batches(6, 1, 2))[1].rows
    again, found = written.read(fixed_batches(6, 1, 4))
    assert (launch, again) == (0, 1)
    np.testing.assert_array_equal(found.rows[3], rows[3])


def test_a_folder_that_cannot_be_written_is_refused_before_any_video_is_opened(tmp_path):
    (tmp_path / "partial").write_text("a file")
    with refused(tmp_path / "partial"):
        run(RECORDS, make_loader=lambda indices: pytest.fail("a video is opened"), store=store(tmp_path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    results, open_file = store(tmp_path), Path.open
    launch, _ = results.read([range(1)])
    monkeypatch.setattr(Path, "open", lambda path, *mode, **options: open_file(Path("/dev/full"), "wb", 0))
    with refused("000-0000.jsonl", "No space left"), results.writer(launch, 0) as append:
        append(Scores({0: np.zeros(NUM_CLASSES)}))
