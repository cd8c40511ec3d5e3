"""View protocols against the arithmetic of their sources, written here as there."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.refusals import refused
from vidtl.config import ClipConfig
from vidtl.data.protocols import PROTOCOLS, get_protocol, view_boxes, view_indices
from vidtl.video import Box

LENGTHS = [1, 2, 7, 31, 32, 33, 62, 63, 64, 65, 66, 73, 100, 250, 299, 300, 301, 1000]
CLIPS = [
    ClipConfig(num_frames=32, stride=2),
    ClipConfig(num_frames=1, stride=4),
    ClipConfig(num_frames=8, stride=8),
    ClipConfig(num_frames=16, stride=4),
]


def dmvr(length, clip, windows):
    """`sample_linspace_sequence`: offsets of a float32 linspace cut to integers, indices into a repeated sequence."""
    spare = max(0, length - clip.num_frames * clip.stride)
    offsets = np.linspace(0, np.float32(spare), windows, dtype=np.float32).astype(np.int32)
    steps = range(0, clip.num_frames * clip.stride, clip.stride)
    return [[(int(offset) + step) % length for step in steps] for offset in offsets]


def slowfast(length, clip, fps, offset_sampling):
    """`get_start_end_idx` and `temporal_sampling`."""
    size = clip.stride * clip.num_frames / 30 * fps
    delta = max(length - size, 0)
    clips = []
    for k in range(10):
        start = k * math.floor(delta / 9) if offset_sampling else delta * k / 10
        index = torch.linspace(start, start + size - 1, clip.num_frames)
        clips.append(torch.clamp(index, 0, length - 1).long().tolist())
    return clips


def mmaction2(length, clip):
    """`SampleFrames(test_mode=True)` with its default, out_of_bound_opt="loop"."""
    spare = max(length - ((clip.num_frames - 1) * clip.stride + 1), 0)
    offsets = np.round(np.arange(10) * (spare / 9.0)).astype(np.int32)
    indices = offsets[:, None] + np.arange(clip.num_frames)[None] * clip.stride
    return np.mod(indices, length).tolist()


def videomae(length, clip):
    """`loadvideo_decord` and the test branch of `__getitem__`."""
    kept = list(range(0, length, clip.stride))
    while len(kept) < clip.num_frames:
        kept.append(kept[-1])
    step = max(1.0 * (len(kept) - clip.num_frames) / 4, 0)
    return [kept[int(k * step) : int(k * step) + clip.num_frames] for k in range(5)]


def charades(length, clip):
    """`Charades.get_seq_frames`."""
    gap = float(max(length - ((clip.num_frames - 1) * clip.stride + 1), 0)) / 9
    starts = [round(gap * k) for k in range(10)]
    return [[max(min(s + i * clip.stride, length - 1), 0) for i in range(clip.num_frames)] for s in starts]


def videomae_ssv2(length, clip):
    """`ssv2.py`, test mode: starts and centers of the segments, sorted, every second one to each clip."""
    tick = length / float(clip.num_frames)
    centers = [int(tick / 2.0 + tick * x) for x in range(clip.num_frames)]
    both = np.sort(np.array(centers + [int(tick * x) for x in range(clip.num_frames)]))
    return [both[0::2].tolist(), both[1::2].tolist()]


def slowfast_ssv2(length, clip):
    """`Ssv2.get_seq_frames`, test mode."""
    size = float(length - 1) / clip.num_frames
    ends = [(int(np.round(size * i)), int(np.round(size * (i + 1)))) for i in range(clip.num_frames)]
    return [[(start + end) // 2 for start, end in ends]]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: f"{clip.num_frames}x{clip.stride}")
def test_indices_are_those_of_the_sources(clip):
    for length, fps in itertools.product(LENGTHS, (30.0, 25.0, 30000 / 1001, 12.5)):
        expected = {
            "vivit_4x3": dmvr(length, clip, 4),
            "slowfast_10x3": slowfast(length, clip, fps, offset_sampling=False),
            "slowfast_10x3_offset": slowfast(length, clip, fps, offset_sampling=True),
            "mmaction2_10x3": mmaction2(length, clip),
            "videomae_5x3": videomae(length, clip),
            "charades_10x3_max": charades(length, clip),
            "videomae_ssv2_2x3": videomae_ssv2(length, clip),
            "slowfast_ssv2_1x3": slowfast_ssv2(length, clip),
        }
        for name, clips in expected.items():
            indices = view_indices(get_protocol(name), length, clip, fps)
            assert indices.dtype == np.int64
            assert indices.tolist() == clips, (name, length, fps)


def test_starts_of_one_view_are_those_of_the_sources():
    """All but SlowFast's default center it; DMVR counts a whole stride after each frame."""
    for name, start in {"slowfast_10x3": 0, "slowfast_10x3_offset": 18, "vivit_4x3": 18, "mmaction2_10x3": 21}.items():
        one = replace(get_protocol(name), num_clips=1)
        assert view_indices(one, 100, ClipConfig(num_frames=8, stride=8), 30.0)[0, 0] == start, name


def test_center_is_one_centered_span_or_the_centers_of_segments():
    spans, segments = (ClipConfig(num_frames=8, stride=2, sampling=name) for name in ("random_span", "segments"))
    for clip, length, frames in (
        (spans, 100, list(range(42, 58, 2))),
        (spans, 15, list(range(0, 15, 2))),
        (segments, 80, list(range(5, 80, 10))),
        (segments, 4, [0, 0, 1, 1, 2, 2, 3, 3]),
    ):
        assert view_indices(get_protocol("center"), length, clip, 30.0).tolist() == [frames]


def test_short_videos_follow_the_clip():
    for short_video, beyond in (("loop", [0, 2, 4, 1, 3, 0, 2, 4]), ("hold", [0, 2, 4, 4, 4, 4, 4, 4])):
        clip = ClipConfig(num_frames=8, stride=2, short_video=short_video)
        for name in ("center", "vivit_4x3"):
            assert view_indices(get_protocol(name), 5, clip, 30.0)[0].tolist() == beyond


@pytest.mark.parametrize(
    ("name", "size", "short_side", "corners"),
    [
        ("vivit_4x3", (256, 341), 256, [(16, 0), (16, 59), (16, 117)]),  # along the longer side
        ("vivit_4x3", (341, 256), 256, [(0, 16), (59, 16), (117, 16)]),
        ("slowfast_10x3", (256, 256), 256, [(16, 0), (16, 16), (16, 32)]),
        ("center", (257, 341), 257, [(17, 59)]),  # 33 pixels to spare in height, 118 - 1 in width
        ("charades_10x3_max", (257, 341), 257, [(17, 0), (17, 59), (17, 117)]),
        ("mmaction2_10x3", (257, 341), 257, [(16, 0), (16, 116), (16, 58)]),
        ("videomae_5x3", (224, 341), 257, [(0, 0), (0, 58), (0, 117)]),  # short side of the crop
    ],
)
def test_crops_of_each_source(name, size, short_side, corners):
    boxes = view_boxes(get_protocol(name), *size, ClipConfig(frame_size=(224, 224), short_side=short_side))
    assert boxes == [Box(top, left, 224, 224) for top, left in corners]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_boxes_lie_inside_the_frame(name):
    for size in ((256, 340), (1080, 1920), (1920, 1080), (8, 8), (47, 51), (1, 3000)):
        boxes = np.array(view_boxes(get_protocol(name), *size, ClipConfig(frame_size=(224, 192), short_side=240)))
        assert len(boxes) * len(get_protocol(name).flips) == get_protocol(name).num_crops
        assert (boxes >= [0, 0, 1, 1]).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= size).all()
        squeezed = view_boxes(get_protocol(name), *size, ClipConfig(frame_size=(224, 192), short_side=0))
        assert set(squeezed) == {Box(0, 0, *size)}


def test_fusion_is_the_published_one():
    others = {name: protocol.fusion for name, protocol in PROTOCOLS.items() if protocol.fusion != "mean_probabilities"}
    assert others == dict.fromkeys(("center", "center_4flips", "vivit_4x3"), "mean_logits") | {
        "charades_10x3_max": "max"
    }


def test_protocols_are_checked():
    with refused("evaluation.protocol", "'vivit_3x4'", "'vivit_4x3'"):
        get_protocol("vivit_3x4")
    spans, segments = ClipConfig(), ClipConfig(sampling="segments")
    suited = {name: (protocol.suits(spans), protocol.suits(segments)) for name, protocol in PROTOCOLS.items()}
    assert suited["center"] == (True, True)
    assert suited["vivit_4x3"] == (True, False)
    assert suited["videomae_ssv2_2x3"] == suited["slowfast_ssv2_1x3"] == (False, True)
    assert all(protocol.suits(ClipConfig(num_frames=1)) for protocol in PROTOCOLS.values())
