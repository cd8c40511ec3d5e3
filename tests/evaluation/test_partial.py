"""Interrupted evaluations: nothing scored twice, nothing of another one mixed in, and the same bits at the end."""

import json
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from vidtl.evaluation.batching import FULL_ENOUGH, group_size, video_groups
from vidtl.evaluation.fingerprint import data_fingerprint, evaluation_key, model_fingerprint
from vidtl.evaluation.partial import PartialResults, PartialWriter

from tests.evaluation.test_evaluator import NotedProgress
from tests.evaluation.tiny_evaluation import CONFIG, NUM_CLASSES, make_records, read_views, run
from vidtl.config import ClipConfig, DataConfig, EvaluationConfig
from vidtl.data.protocols import get_protocol
from vidtl.data.records import StringColumn
from vidtl.errors import UserError

RECORDS = make_records(11, False)
BROKEN = (2, 8)
CENTER = get_protocol("center")


class KilledError(Exception):
    """What SIGKILL is to a process."""


def partial_results(folder: Path, key: str = "a") -> PartialResults:
    return PartialResults(folder / "partial", {"key": key}, NUM_CLASSES)


def run_until(folder: Path, last: int, opened: list[int], key: str = "a", broken: tuple[int, ...] = ()) -> None:
    """Evaluate until record `last` is due."""

    def read(indices):
        for video in read_views(RECORDS, broken, indices):
            if video.index == last:
                raise KilledError
            opened.append(video.index)
            yield video

    with pytest.raises(KilledError):
        run(RECORDS, make_loader=read, partial=partial_results(folder, key))


def run_on(folder: Path, opened: list[int], key: str = "a", broken: tuple[int, ...] = (), **options):
    def read(indices):
        for video in read_views(RECORDS, broken, indices):
            opened.append(video.index)
            yield video

    return run(RECORDS, make_loader=read, partial=partial_results(folder, key), **options)


def test_no_video_is_opened_twice_and_every_bit_is_the_same(tmp_path):
    whole = run(RECORDS)
    size = group_size(6, CONFIG.evaluation.batch_size)
    opened: list[int] = []
    for last in (3, 7, 10):  # killed three times, in the middle of a group each time
        run_until(tmp_path, last, opened)
    progress = NotedProgress()
    result = run_on(tmp_path, opened, progress=progress)
    assert progress.before == 10 // size * size
    assert progress.done[-1] == progress.total == 11
    np.testing.assert_array_equal(result.scores, whole.scores)
    assert result.metrics == whole.metrics
    in_groups_that_were_cut = sum(last % size for last in (3, 7, 10))
    assert len(opened) == 11 + in_groups_that_were_cut
    assert set(opened) == set(range(11))


@pytest.mark.parametrize("still_broken", [(), (8,), BROKEN])
def test_groups_with_videos_that_could_not_be_read_are_scored_again(tmp_path, still_broken):
    run_until(tmp_path, 10, [], broken=BROKEN)
    opened: list[int] = []
    result = run_on(tmp_path, opened, broken=still_broken)
    assert opened == [2, 3, 8, 9, 10]
    whole = run(RECORDS, still_broken)
    np.testing.assert_array_equal(result.scores, whole.scores)
    assert result.metrics == whole.metrics
    assert result.unreadable == whole.unreadable


def test_a_finished_evaluation_that_could_not_report_opens_nothing(tmp_path):
    first = run_on(tmp_path, [])
    opened: list[int] = []
    second = run_on(tmp_path, opened)
    assert opened == []
    np.testing.assert_array_equal(first.scores, second.scores)
    partial_results(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


def test_partial_results_of_another_evaluation_are_not_used_and_stay(tmp_path, caplog):
    run_until(tmp_path, 10, [], key="other checkpoint")
    opened: list[int] = []
    run_on(tmp_path, opened)
    assert sorted(opened) == list(range(11))
    with caplog.at_level(logging.INFO):
        partial_results(tmp_path).remove()
    assert "partial results of another checkpoint or configuration" in caplog.text
    (left,) = (tmp_path / "partial").iterdir()
    assert left == partial_results(tmp_path, "other checkpoint").folder
    (file,) = left.iterdir()  # moved by hand into the folder of this evaluation, it still says whose it is
    partial_results(tmp_path).folder.mkdir()
    file.rename(partial_results(tmp_path).folder / file.name)
    opened.clear()
    run_on(tmp_path, opened)
    assert sorted(opened) == list(range(11))


@pytest.mark.parametrize("cut", [2, 9, 30, 200])
def test_torn_and_damaged_lines_are_scored_again(tmp_path, cut, caplog):
    whole = run_on(tmp_path, [])
    (file,) = partial_results(tmp_path).folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-cut])
    opened: list[int] = []
    again = run_on(tmp_path, opened)
    assert 0 < len(opened) < 11
    np.testing.assert_array_equal(again.scores, whole.scores)
    for other in partial_results(tmp_path).folder.iterdir():
        other.unlink()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    opened.clear()
    assert np.array_equal(run_on(tmp_path, opened).scores, whole.scores)
    assert 0 < len(opened) < 11
    assert "1 damaged lines" in caplog.text


def test_nothing_in_the_files_is_a_pickle(tmp_path):
    run_on(tmp_path, [])
    (file,) = partial_results(tmp_path).folder.iterdir()
    header, *lines = [json.loads(line.partition(" ")[2]) for line in file.read_text("ascii").splitlines()]
    assert header == {"key": "a"}
    assert [video for line in lines for video, _, _ in line["videos"]] == list(range(11))


def test_a_folder_that_cannot_be_written_is_told_before_any_video_is_opened(tmp_path):
    (tmp_path / "partial").write_text("a file")
    opened: list[int] = []
    with pytest.raises(UserError, match=r"partial results in .* cannot be read or written"):
        run_on(tmp_path, opened)
    assert opened == []


def test_two_evaluations_into_one_folder_do_not_write_one_file(tmp_path):
    results = partial_results(tmp_path)
    launch, _ = results.load([range(1)])
    with results.writer(launch, 0):
        second = results.writer(launch, 0)
        with pytest.raises(UserError, match="another evaluation into this folder"):
            second.__enter__()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_takes_one_line():
    writer = PartialWriter(Path("x"), os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(UserError, match="x could not be written: No space left on device"):
        writer.write_line("text")


@pytest.mark.parametrize("num_views", [1, 2, 3, 6, 12, 15, 30])
def test_groups_cover_every_video_once_and_fill_their_batches(num_views):
    for batch_size in range(1, 65):
        size = group_size(num_views, batch_size)
        assert 1 <= size <= batch_size
        batches = -(-size * num_views // batch_size)
        assert size * num_views >= FULL_ENOUGH * batches * batch_size
        groups = video_groups(50, num_views, batch_size)
        assert [index for group in groups for index in group] == list(range(50))
        assert {len(group) for group in groups[:-1]} <= {size}
    assert group_size(1, 16) == 16
    assert group_size(12, 16) == 4
    assert group_size(30, 64) == 2


def test_the_key_holds_whatever_decides_a_score(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    accelerator = Accelerator(cpu=True)
    key = partial(evaluation_key, tmp_path, accelerator=accelerator)
    protocol = replace(CENTER, fusion="max")
    before = key(RECORDS, CONFIG, CENTER)
    json.dumps(before)
    assert key(RECORDS, CONFIG, CENTER) == before
    harmless = replace(CONFIG, data=DataConfig(num_workers=0, worker_timeout_s=9), evaluation=CONFIG.evaluation)
    assert key(RECORDS, harmless, CENTER) == key(RECORDS, replace(CONFIG, data=DataConfig()), CENTER)
    moved = replace(RECORDS, paths=StringColumn.from_strings(f"other/{i}.mp4" for i in range(11)))
    relabelled = replace(RECORDS, label_classes=RECORDS.label_classes[::-1].copy())
    others = [
        key(moved, CONFIG, CENTER),
        key(relabelled, CONFIG, CENTER),
        key(RECORDS.select(range(10)), CONFIG, CENTER),
        key(RECORDS, replace(CONFIG, clip=ClipConfig(num_frames=4)), CENTER),
        key(RECORDS, replace(CONFIG, data=DataConfig(root="elsewhere")), CENTER),
        key(RECORDS, replace(CONFIG, evaluation=EvaluationConfig(batch_size=3)), CENTER),
        key(RECORDS, CONFIG, protocol),
    ]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    others.append(key(RECORDS, CONFIG, CENTER))
    assert before not in others
    assert len({json.dumps(other, sort_keys=True) for other in others}) == len(others)
    assert model_fingerprint(tmp_path) == others[-1]["model"]
    assert data_fingerprint(RECORDS) == before["data"]
