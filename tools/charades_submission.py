"""`eval.py --charades-submission FILE --annotations CSV`: judge a file by the official rules, without a model."""

from pathlib import Path

from vidtl.metrics.charades import SubmissionScores, read_annotations, score_submission
from vidtl.runtime.escape import shown_text

NUM_CLASSES = 157
SHOWN_IDS = 5


def score_file(submission: Path, annotations: Path) -> None:
    """Print the metrics of a submission file."""
    ids, targets_NK = read_annotations(annotations, NUM_CLASSES)
    scores = score_submission(submission, ids, targets_NK)
    num_labelled = int(targets_NK.any(axis=1).sum())
    print(shown_text(f"{annotations}: {len(ids)} videos, {num_labelled} of them with actions"))
    print("\n".join(summary_lines(scores)))


def summary_lines(scores: SubmissionScores) -> list[str]:
    """The figures, and everything about the file that a person should know."""
    official = scores.official
    lines = [
        f"{'mAP':<14}{official.mean_ap:.6f}  official: equal scores in file order, videos without actions left out",
        f"{'mAP weighted':<14}{official.weighted_ap:.6f}  official: weighted by the videos of each class",
        f"{'mAP sklearn':<14}{scores.sklearn_mean_ap:.6f}  equal scores judged together, videos without actions count",
    ]
    if scores.missing_ids:
        lines.append(_named(scores.missing_ids, "videos with actions are missing, which costs their actions"))
    if scores.unknown_ids:
        lines.append(_named(scores.unknown_ids, "videos are not in the annotation and are ignored"))
    if scores.num_repeated:
        lines.append(f"{scores.num_repeated} lines are replaced by a later line of the same video")
    return lines


def _named(ids: list[str], what: str) -> str:
    shown = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
    return shown_text(f"{len(ids)} {what}: {shown}")
