"""The official Charades rules against a plain loop over the published algorithm, and its measured cases."""

import math

import numpy as np
import pytest
from vidtl.metrics.classification import per_class_average_precision

from vidtl.errors import UserError
from vidtl.metrics.charades import official_scores, read_submission, score_submission, write_submission


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


def ap(scores, labels) -> float:
    """AP of the first class; the second class labels every row, so that none is without actions."""
    scores = np.array(scores, float)
    table = np.stack([scores, np.zeros_like(scores)], axis=1)
    return float(official_scores(table, np.stack([labels, np.ones(len(labels))], axis=1)).average_precisions[0])


def test_measured_cases():
    assert ap([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx(0.8333, abs=5e-5)
    assert ap([0.5] * 4, [1, 0, 0, 0]) == 1.0
    assert ap([0.5] * 4, [0, 0, 0, 1]) == 0.25
    assert ap([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1]) == 0.5
    assert math.isnan(ap([0.1, 0.2], [0, 0]))
    assert ap([0.5, -np.inf, 0.2], [0, 1, 0]) == pytest.approx(1 / 3)
    assert ap([20, 30, 40, -3], [0, 0, 1, 0]) == 1.0


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
    result = score_submission(path, ids, targets)
    expected = reference_scores(rows, ids, targets)
    np.testing.assert_allclose(result.official.average_precisions, expected, rtol=1e-13)
    positives = targets.sum(0)
    assert result.official.mean_ap == pytest.approx(expected.mean(), rel=1e-13)
    assert result.official.weighted_ap == pytest.approx((expected * positives).sum() / positives.sum(), rel=1e-13)
    with_actions = [v for v, row in zip(ids, targets, strict=True) if row.any()]
    assert result.missing_ids == [v for v in with_actions if v not in set(submitted)]
    assert result.unknown_ids == ["stranger"]
    assert result.num_repeated == len(submitted) - len(set(submitted))


def test_agrees_with_the_grouping_definition_where_nothing_ties():
    rng = np.random.default_rng(2)
    targets = rng.random((80, 9)) < 0.2
    targets[~targets.any(1), 0] = True
    scores = rng.normal(0, 1, targets.shape)
    np.testing.assert_allclose(
        official_scores(scores, targets).average_precisions, per_class_average_precision(scores, targets), atol=1e-12
    )


def test_rows_without_actions_cost_nothing_and_missing_ones_do():
    rng = np.random.default_rng(3)
    targets = rng.random((50, 5)) < 0.4
    targets[0] = True
    targets[20:30] = False
    scores = rng.normal(0, 1, targets.shape)
    kept = targets.any(1)
    whole = official_scores(scores, targets)
    np.testing.assert_allclose(
        whole.average_precisions, official_scores(scores[kept], targets[kept]).average_precisions
    )
    perfect = targets + rng.random(targets.shape) / 2
    assert official_scores(perfect, targets).mean_ap == 1.0
    perfect[0] = -np.inf
    assert official_scores(perfect[1:], targets[1:]).mean_ap == 1.0
    positives, rows = targets.sum(0), len(targets)
    expected = (positives - 1 + positives / rows) / positives  # the missed positive comes after every other row
    assert official_scores(np.roll(perfect, -1, axis=0), np.roll(targets, -1, axis=0)).mean_ap == pytest.approx(
        expected.mean(), rel=1e-13
    )


def test_one_empty_class_makes_the_official_mean_nan():
    targets = np.array([[1, 0], [1, 0]])
    result = official_scores(np.zeros((2, 2)), targets)
    assert math.isnan(result.mean_ap)
    assert math.isnan(result.weighted_ap)  # NaN times no positives is NaN


def test_a_repeated_annotation_id_has_its_line_in_every_row(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("a 5 1\nb 4 2\n")
    targets = np.array([[1, 0], [0, 1], [1, 1]])
    result = score_submission(path, ["a", "b", "a"], targets)
    table = np.array([[5.0, 1], [4, 2], [5, 1]])
    np.testing.assert_array_equal(
        result.official.average_precisions, official_scores(table, targets).average_precisions
    )
    np.testing.assert_allclose(result.official.average_precisions, [1, (1 + 2 / 3) / 2])


def test_more_numbers_than_158_are_refused_and_blanks_at_the_end_are_none(tmp_path):
    """The original takes the first 157 of any longer line, after saying that the line is wrong."""
    path = tmp_path / "s.txt"
    path.write_text("a\t" + "\t".join(["1"] * 157) + "\t\n" + "b " + " ".join(["2"] * 158) + "\n")
    np.testing.assert_array_equal(read_submission(path, 157).scores[:, 0], [1, 2])
    assert read_submission(path, 157).scores.shape == (2, 157)
    path.write_text("b " + " ".join(["2"] * 159))
    with pytest.raises(UserError, match="has 159 numbers; allowed: 157 or 158"):
        read_submission(path, 157)


def test_videos_without_actions_count_in_sklearn_mode_only(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("a 3\nb 2\nc 1\n")
    result = score_submission(path, ["a", "b", "c"], np.array([[0], [1], [1]]))
    assert result.official.mean_ap == 1.0
    assert result.sklearn_mean_ap == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_the_last_line_of_an_id_counts(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("a 1 2\nb 5 6\na 3 4\n")
    submission = read_submission(path, 2)
    assert submission.ids == ["a", "b"]
    assert submission.num_repeated == 1
    np.testing.assert_array_equal(submission.scores, [[3, 4], [5, 6]])


def test_written_scores_read_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(4)
    scores = rng.normal(0, 1, (30, 157)) * 10.0 ** rng.integers(-30, 30, (30, 157))
    scores[3] = -np.inf
    ids = [f"-V{i}=" for i in range(30)]
    write_submission(tmp_path / "s.txt", ids, scores)
    submission = read_submission(tmp_path / "s.txt", 157)
    assert submission.ids == ids
    np.testing.assert_array_equal(submission.scores, scores)
    assert [p.name for p in tmp_path.iterdir()] == ["s.txt"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x 1", r"s\.txt:2 has 1 numbers; allowed: 2 or 3"),
        ("x 1 2 3 4", r"s\.txt:2 has 4 numbers"),
        ("x 1 two", r"s\.txt:2: could not convert string to float: 'two'"),
        ("x 1 nan", r"s\.txt:2 holds a score that is not a number"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "s.txt"
    path.write_text(f"a 1 2\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_submission(path, 2)


def test_missing_file_and_bad_ids_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt cannot be read"):
        read_submission(tmp_path / "none.txt", 2)
    with pytest.raises(UserError, match="'two words' cannot stand"):
        write_submission(tmp_path / "s.txt", ["two words"], np.zeros((1, 2)))
