"""The videos that the page shows, with their pictures and what is said about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidtl.evaluation.html.examples import Example, confidently_wrong, hardest
from vidtl.evaluation.html.pictures import CELL_HEIGHT, Picture, data_uri, read_pictures
from vidtl.evaluation.html.rows import percent
from vidtl.evaluation.result import EvaluationResult

MAX_PICTURE_BYTES = 6_000_000
"""Of all pictures as text; videos whose pictures would go beyond it are shown without."""


def video_groups(result: EvaluationResult, folder: Path) -> list[dict[str, Any]]:
    """Both kinds of videos worth a look, with pictures as long as they fit."""
    wrong = confidently_wrong(result)
    hard = hardest(result, wrong)
    pictures, room = read_pictures(folder), MAX_PICTURE_BYTES
    items: dict[int, dict[str, Any]] = {}
    for example in [*wrong, *hard]:
        item = _item(example, pictures.get(example.index), folder)
        size = len(item["frames"]) + len(item["tokens"])
        if size > room:
            item = _item(example, None, folder)
        else:
            room -= size
        items[example.index] = item
    notes = (
        ("Absent, yet most confidently named", "The model is surest here of a class that the video does not have.")
        if result.multi_label
        else ("Most confidently wrong", "The model is surest here of a class that is not the true one.")
    )
    return [
        _group(*notes, [items[example.index] for example in wrong]),
        _group(
            "Hardest of the others",
            "The model gives a true class the least probability here.",
            [items[example.index] for example in hard],
        ),
    ]


def _group(title: str, note: str, videos: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "note": note, "videos": videos, "has_pictures": any(video["frames"] for video in videos)}


def _item(example: Example, picture: Picture | None, folder: Path) -> dict[str, Any]:
    """One video as the template shows it."""
    frames = data_uri(folder, picture.frames) if picture else ""
    if picture is None or not frames:
        return {"example": example, "frames": "", "tokens": ""}
    tokens = data_uri(folder, picture.tokens)
    steps = f"{picture.num_steps} of {picture.num_steps_of_clip} timesteps"
    num_rows = 2 if tokens else 1
    caption = f"Central clip, {steps}, time runs to the right."
    if tokens:
        caption += " Bright is where the tokens look" + (
            "." if picture.overlap is None else f"; two tokens share {percent(picture.overlap, 0)} % of their places."
        )
    scale = max(1.0, CELL_HEIGHT / picture.cell_height)  # of frames too small to see
    shown_tokens = picture.entropy[: picture.num_token_rows]
    return {
        "example": example,
        "frames": frames,
        "frames_alt": f"{steps} of the video" + (", and the same under the mean of all token maps" if tokens else ""),
        "frame_labels": ["frames", "all tokens"][:num_rows],
        "width": round(picture.width * scale),
        "frames_height": round(picture.height(num_rows) * scale),
        "tokens": tokens,
        "tokens_alt": f"Where each of {len(shown_tokens)} tokens looks, in {steps}, one row per token",
        "token_labels": [(f"token {number}", f"{value:.2f}") for number, value in enumerate(shown_tokens, start=1)],
        "tokens_height": round(picture.height(len(shown_tokens)) * scale),
        "caption": caption,
    }


def picture_note(groups: Sequence[Mapping[str, Any]]) -> str:
    items = [item for group in groups for item in group["videos"]]
    without = sum(not item["frames"] for item in items)
    if without == len(items):
        return "Without pictures: none were drawn in this evaluation." if items else ""
    if any(item["tokens"] for item in items):
        note = "Entropy of a token: 0 looks at one place, 1 everywhere alike."
    else:
        note = "The model has no TokenLearner, so the frames are shown by themselves."
    return f"{note} {without} of {len(items)} videos are shown without pictures." if without else note
