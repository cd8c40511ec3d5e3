"""Published evaluation protocols: clips and crops of a video, and the fusion of their scores.

"Three" crops lie along the longer side, and are centered along the other one. The frame is first resized to a short
side of `clip.short_side`, or for VideoMAE of the crop's side. Past its end, a video goes on as by `clip.short_video`
unless the source has a rule of its own: "loop" or "hold". Published settings of SlowFast and Charades use
`clip.frame_size` 256 x 256 with a short side of 256, and Charades' frames are at 24 fps (`clip.target_fps`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vidtl.config import ClipConfig
from vidtl.data.sampling import ShortVideo, box_of_crop, resized_size, segment_indices, span_indices
from vidtl.errors import UserError, did_you_mean
from vidtl.video import Box

Fusion = Literal["mean_logits", "mean_probabilities", "max"]
IndexRule = Callable[[int, int, ClipConfig, float], np.ndarray]
"""(number of clips, number of available frames, clip, frames per second) -> int64 [clips, T]"""
CropRule = Callable[[int, int], list[tuple[int, int]]]
"""(spare pixels along the longer side, along the other) -> offset of every crop along both"""

_SLOWFAST_FPS = 30  # SlowFast counts spans in frames at this rate


@dataclass(frozen=True)
class Protocol:
    """The views of a video and their fusion: V = num_clips * num_crops, clip-major."""

    name: str
    num_clips: int
    num_crops: int
    fusion: Fusion
    indices: IndexRule
    crops: CropRule
    short_side: Literal["clip", "frame"] = "clip"
    """Resize the shorter side to `clip.short_side`, or to the larger side of `clip.frame_size`."""
    frames: Literal["spans", "segments", "either"] = "spans"
    """Kind of clips that the model was trained on (`clip.sampling`)."""
    flips: tuple[tuple[int, ...], ...] = ((),)
    """Axes along which each decoded crop is flipped, on the device; each flip counts as a crop."""

    @property
    def decoded_crops(self) -> int:
        """Crops of a clip that are decoded, without their flips."""
        return self.num_crops // len(self.flips)

    def suits(self, clip: ClipConfig) -> bool:
        """Return True if the protocol shows frames of the kind that the model was trained on."""
        trained_on = "segments" if clip.sampling == "segments" else "spans"
        return clip.num_frames == 1 or self.frames in (trained_on, "either")


def center_indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Return the center of each segment of the video, or one centered span, by `clip.sampling`."""
    if clip.sampling == "segments":
        return segment_indices(num_available, clip.num_frames, 0.5)[None]
    return even_indices(1, num_available, clip, fps)


def even_indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Use starts int(linspace(0, N - T * stride, clips)); one clip is centered (DMVR `sample_linspace_sequence`)."""
    spare = max(num_available - clip.num_frames * clip.stride, 0)
    starts = [spare // 2] if num_clips == 1 else [k * spare // (num_clips - 1) for k in range(num_clips)]
    return _spans(starts, num_available, clip, clip.short_video)


def slowfast_indices(offset_sampling: bool) -> IndexRule:
    """Space T frames evenly over the span from every start, truncated to integers; hold the last frame.

    Starts are k * spare / clips, or with `offset_sampling` k * floor(spare / (clips - 1)), where one clip is centered
    (SlowFast `get_start_end_idx`, `USE_OFFSET_SAMPLING`, `temporal_sampling`).
    """

    def indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
        span = clip.num_frames * clip.stride * fps / _SLOWFAST_FPS
        spare, length = max(num_available - span, 0), span - 1
        if offset_sampling:
            starts = [spare // 2] if num_clips == 1 else [k * (spare // (num_clips - 1)) for k in range(num_clips)]
        else:
            starts = [spare * k / num_clips for k in range(num_clips)]
        import torch  # here, because names are checked before it is loaded

        # Its float32 rounding decides the frame where values are truncated.
        times = [torch.linspace(start, start + length, clip.num_frames) for start in starts]
        return torch.stack(times).clamp(0, num_available - 1).long().numpy()

    return indices


def rounded_indices(short_video: ShortVideo) -> IndexRule:
    """Use starts round(k * spare / (clips - 1)), halves to even; one clip is centered.

    Sources: mmaction2 `SampleFrames`, where indices wrap ("loop"); SlowFast `Charades.get_seq_frames` ("hold").
    """

    def indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
        spare = max(num_available - 1 - (clip.num_frames - 1) * clip.stride, 0)
        step = spare / max(num_clips - 1, 1)
        starts = [spare // 2] if num_clips == 1 else [round(k * step) for k in range(num_clips)]
        return _spans(starts, num_available, clip, short_video)

    return indices


def videomae_indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Use starts int(k * spare / (clips - 1)) in every stride-th frame (VideoMAE `kinetics.py`, test mode)."""
    kept = np.arange(0, num_available, clip.stride, dtype=np.int64)
    spare = max(len(kept) - clip.num_frames, 0)
    starts = [int(k * spare / max(num_clips - 1, 1)) for k in range(num_clips)]
    return np.stack([kept[span_indices(start, clip.num_frames, 1, len(kept), "hold")] for start in starts])


def videomae_ssv2_indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Take the frame at k / clips of each of T equal segments for clip k (VideoMAE `ssv2.py`, test mode)."""
    return np.stack([segment_indices(num_available, clip.num_frames, k / num_clips) for k in range(num_clips)])


def slowfast_ssv2_indices(num_clips: int, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Take the centers of T segments with ends rounded half to even; all clips are equal (SlowFast `ssv2.py`)."""
    ends = np.round((num_available - 1) / clip.num_frames * np.arange(clip.num_frames + 1)).astype(np.int64)
    return np.repeat((ends[None, :-1] + ends[None, 1:]) // 2, num_clips, axis=0)


def _spans(starts: list[int], num_available: int, clip: ClipConfig, short_video: ShortVideo) -> np.ndarray:
    return np.stack([span_indices(start, clip.num_frames, clip.stride, num_available, short_video) for start in starts])


def center_crop(along: int, across: int) -> list[tuple[int, int]]:
    """Return one centered crop; halves are rounded up."""
    return [((along + 1) // 2, (across + 1) // 2)]


def three_crops(along: int, across: int) -> list[tuple[int, int]]:
    """Return start, middle, end; halves are rounded up (SlowFast and scenic `uniform_crop`)."""
    return [(offset, (across + 1) // 2) for offset in (0, (along + 1) // 2, along)]


def mmaction2_crops(along: int, across: int) -> list[tuple[int, int]]:
    """Return start, end, middle; halves are rounded down, the end is twice the middle (mmaction2 `ThreeCrop`)."""
    return [(offset, across // 2) for offset in (0, along // 2 * 2, along // 2)]


def videomae_crops(along: int, across: int) -> list[tuple[int, int]]:
    """Return start, middle, end; halves are rounded down (VideoMAE `kinetics.py`, test mode)."""
    return [(offset, across // 2) for offset in (0, along // 2, along)]


_SEGMENTS: Any = {"short_side": "frame", "frames": "segments"}
_CENTER = Protocol("center", 1, 1, "mean_logits", center_indices, center_crop, frames="either")
_PROTOCOLS = (
    _CENTER,
    replace(_CENTER, name="center_4flips", num_crops=4, flips=((), (-1,), (-2,), (-2, -1))),
    Protocol("vivit_4x3", 4, 3, "mean_logits", even_indices, three_crops),
    Protocol("slowfast_10x3", 10, 3, "mean_probabilities", slowfast_indices(False), three_crops),
    Protocol("slowfast_10x3_offset", 10, 3, "mean_probabilities", slowfast_indices(True), three_crops),
    Protocol("mmaction2_10x3", 10, 3, "mean_probabilities", rounded_indices("loop"), mmaction2_crops),
    Protocol("videomae_5x3", 5, 3, "mean_probabilities", videomae_indices, videomae_crops, short_side="frame"),
    Protocol("charades_10x3_max", 10, 3, "max", rounded_indices("hold"), three_crops),
    Protocol("videomae_ssv2_2x3", 2, 3, "mean_probabilities", videomae_ssv2_indices, videomae_crops, **_SEGMENTS),
    Protocol("slowfast_ssv2_1x3", 1, 3, "mean_probabilities", slowfast_ssv2_indices, three_crops, **_SEGMENTS),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _PROTOCOLS}
LOCALIZATION = Protocol("charades_localize", 1, 1, "max", center_indices, center_crop)  # for eval.py alone


def get_protocol(name: str, *others: Protocol) -> Protocol:
    """Return one of `PROTOCOLS` and the `others`; UserError with the nearest name if there is none."""
    protocols = PROTOCOLS | {each.name: each for each in others}
    if name not in protocols:
        raise UserError(f"evaluation.protocol is {name!r}; {did_you_mean(name, protocols)}")
    return protocols[name]


def protocol_of_run(name: str, of_dataset: str, *others: Protocol) -> Protocol:
    """Resolve `evaluation.protocol`: a protocol by name, or `dataset` for that of the data set."""
    return get_protocol(of_dataset if name == "dataset" else name, *others)


def view_indices(protocol: Protocol, num_available: int, clip: ClipConfig, fps: float) -> np.ndarray:
    """Return the frames of every clip, of 1 or more available ones at `fps`: int64 [num_clips, T]."""
    return protocol.indices(protocol.num_clips, num_available, clip, fps)


def view_boxes(protocol: Protocol, height: int, width: int, clip: ClipConfig) -> list[Box]:
    """Return the crops of a frame (height and width as displayed) in source pixels, in published order, unflipped."""
    short_side = clip.short_side if protocol.short_side == "clip" else max(clip.frame_size)
    resized = resized_size(height, width, short_side) if clip.short_side else clip.frame_size
    crop_height, crop_width = clip.frame_size
    spare_height, spare_width = resized[0] - crop_height, resized[1] - crop_width
    if resized[0] > resized[1]:
        corners = protocol.crops(spare_height, spare_width)
    else:
        corners = [(top, left) for left, top in protocol.crops(spare_width, spare_height)]
    return [box_of_crop((height, width), resized, Box(top, left, crop_height, crop_width)) for top, left in corners]
