"""The official Charades rules against a plain loop over the published algorithm, and its measured cases."""

import math

import numpy as np
import pytest

from tests.refusals import refused
from vidtl.metrics.charades import match_submission, official_rankings, read_submission, scores_of, write_submission


def reference_scores(rows: list[tuple[str, list[float]]], ids: list[str], targets: np.ndarray) -> np.ndarray:
    """AP per class by the steps of the official script: loops, no vectors."""
    num_classes = targets.shape[1]
    row_of_id = {video: i for i, video in enumerate(ids) if targets[i].any()}
    table = [[-math.inf] * num_classes for _ in ids]
    for video, numbers in rows:
        if video in row_of_id:
            table[row_of_id[video]] = numbers[:num_classes]
    result = []
    for k in range(num_classes):
        ranking = sorted(range(len(ids)), key=lambda i: -table[i][k])  # Python's sort is stable
        found, total = 0, 0.0
        for rank, i in enumerate(ranking, start=1):
            if targets[i, k]:
                found += 1
                total += found / rank
        result.append(total / found if found else math.nan)
    return np.array(result)


@pytest.mark.parametrize(("num_classes", "decimals", "separator"), [(157, 3, " "), (157, 0, "\t"), (4, 0, " ")])
def test_whole_submission_against_the_published_steps(tmp_path, num_classes, decimals, separator):
    """Ties, rows without actions, missing and unknown ids, repeated ids and a 158th column, all at once."""
    rng = np.random.default_rng(num_classes + decimals)
    ids = [f"V{i:03d}" for i in range(120)]
    targets = rng.random((120, num_classes)) < 0.06
    targets[rng.choice(120, 10, replace=False)] = False
    targets[0] = True  # every class has a positive
    submitted = [*rng.permutation(ids)[:100], "stranger", "V005", "V007"]
    rows = [(v, np.round(rng.normal(0, 2, num_classes + n % 2), decimals).tolist()) for n, v in enumerate(submitted)]
    path = tmp_path / "submission.txt"
    path.write_text("".join(separator.join([v, *map(repr, numbers)]) + "\r\n" for v, numbers in rows))
    result = match_submission(path, ids, targets)
    official = scores_of(official_rankings(result.scores, targets))
    expected, positives = reference_scores(rows, ids, targets), targets.sum(0)
    np.testing.assert_allclose(official.average_precisions, expected, rtol=1e-13)
    assert official.mean_ap == pytest.approx(expected.mean(), rel=1e-13)
    assert official.weighted_ap == pytest.approx((expected * positives).sum() / positives.sum(), rel=1e-13)
    assert result.missing_ids == [v for v, row in zip(ids, targets, strict=True) if row.any() and v not in submitted]
    assert result.unknown_ids == ["stranger"]
    assert result.num_repeated == len(submitted) - len(set(submitted))


def test_empty_classes_and_repeated_annotation_ids(tmp_path):
    result = scores_of(official_rankings(np.zeros((2, 2)), np.array([[1, 0], [1, 0]])))
    assert np.isnan([result.mean_ap, result.weighted_ap]).all()
    (tmp_path / "s.txt").write_text("a 5 1\nb 4 2\n")
    targets = np.array([[1, 0], [0, 1], [1, 1]])
    scores = match_submission(tmp_path / "s.txt", ["a", "b", "a"], targets).scores
    np.testing.assert_array_equal(scores, [[5.0, 1], [4, 2], [5, 1]])
    np.testing.assert_allclose(scores_of(official_rankings(scores, targets)).average_precisions, [1, (1 + 2 / 3) / 2])


def test_written_scores_read_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(4)
    scores = rng.normal(0, 1, (30, 157)) * 10.0 ** rng.integers(-30, 30, (30, 157))
    scores[3] = -np.inf
    ids = [f"-V{i}=" for i in range(30)]
    write_submission(tmp_path / "s.txt", ids, scores)
    rows, _ = read_submission(tmp_path / "s.txt", 157)
    assert list(rows) == ids
    np.testing.assert_array_equal(list(rows.values()), scores)


def test_bad_lines_missing_files_and_bad_ids_are_refused(tmp_path):
    for line, named in (("x 1", "1 numbers"), ("x 1 2 3 4", "4 numbers"), ("x 1 two", "'two'"), ("x 1 nan", "nan")):
        (tmp_path / "s.txt").write_text(f"a 1 2\n{line}\n")
        with refused("s.txt:2", named):
            read_submission(tmp_path / "s.txt", 2)
    with refused("none.txt"):
        read_submission(tmp_path / "none.txt", 2)
    with refused("'two words'", "s.txt"):
        write_submission(tmp_path / "s.txt", ["two words"], np.zeros((1, 2)))
