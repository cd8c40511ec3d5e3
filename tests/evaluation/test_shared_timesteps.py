"""Timesteps that clips of a forward pass share are encoded once, with the scores of clips that share nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tests.evaluation.tiny_evaluation import make_records
from vidtl.annotations.records import ClassNames, StringColumn
from vidtl.annotations.video_files import find_videos, records_of_files
from vidtl.config import ClipConfig, DataConfig, EvaluationConfig, ModelConfig, TokenLearnerConfig
from vidtl.data.batch import VideoViews, prepare_input
from vidtl.data.loader import EvalLoader
from vidtl.data.protocols import get_protocol
from vidtl.data.windows import Hop, sliding_windows
from vidtl.evaluation.scoring import Scorer
from vidtl.models import build_model

CLIP = ClipConfig(num_frames=8, stride=2, frame_size=(32, 32), short_side=32)
SMALL = ModelConfig(
    width=24, depth=2, num_heads=4, mlp_width=48, temporal_depth=1, tubelet=(2, 16, 16),
    token_learner=TokenLearnerConfig(num_tokens=0),
)  # fmt: skip
MODELS = {
    "mean": {},
    "cls": {"pooling": "cls"},
    "no second encoder": {"temporal_depth": 0, "pooling": "max", "positions": "sincos_3d"},
    "token_learner": {"token_learner": TokenLearnerConfig(num_tokens=2, after_block=1)},
    "attention, registers": {"pooling": "attention", "num_registers": 2},
    "tokens": {"temporal_input": "tokens"},
    "places": {"temporal_input": "places"},
    "uniform": {"tubelet_sampling": "uniform"},
    "t2t": {"tokenizer": "t2t_transformer", "tubelet": (1, 16, 16)},
    "joint": {"form": "joint"},
    "factorised_self_attention": {"form": "factorised_self_attention"},
    "factorised_dot_product": {"form": "factorised_dot_product"},
}


def made(**changes):
    """A model with weights that are not 0, and a list of the timesteps of each of its forward passes."""
    torch.manual_seed(0)
    model = build_model(replace(SMALL, **changes), CLIP, 6).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    encoded = []
    model.embed.register_forward_hook(lambda module, inputs, tokens: encoded.append(tokens.shape[0] * tokens.shape[1]))
    return model, encoded


def score(model, videos, paths, crops=1, batch_size=4, flips=((),)):
    records = replace(make_records(len(paths), multi_label=False), paths=StringColumn.from_strings(paths))
    num_clips, num_crops = len(videos[0].pixels) // crops, crops * len(flips)
    protocol = replace(get_protocol("center"), num_clips=num_clips, num_crops=num_crops, flips=flips)
    scorer = Scorer(model, records, CLIP, EvaluationConfig(batch_size=batch_size), protocol, Accelerator(cpu=True))
    batches = scorer.score(videos, scorer.batches(), lambda finished: None)
    return np.array([row for batch in batches for _, row in sorted(batch.rows.items())])


def view_of(index, frames_VT, crops=1):
    """Views of one random video: the same frame and crop has the same pixels."""
    film = np.random.default_rng(0).integers(0, 256, (crops, 100, 48, 32), dtype=np.uint8)
    pixels = torch.from_numpy(np.stack([film[v % crops, frames] for v, frames in enumerate(frames_VT)]))
    return VideoViews(index=index, pixels=pixels, color=0, failure=None, frames=frames_VT)


@pytest.mark.parametrize("name", MODELS)
def test_windows_of_a_file_share_timesteps_where_the_form_allows_it(name):
    model, encoded = made(**MODELS[name])
    starts = [0, 8, 12, 20, 30]  # 8 and 12 are multiples of a timestep's 4 frames, the last one is not of the second
    videos = [view_of(i, start + 2 * np.arange(8)[None]) for i, start in enumerate(starts)]
    apart = score(model, videos, [f"{start}.mp4" for start in starts])
    timesteps = model.grid.t
    assert encoded == [4 * timesteps, timesteps]
    with torch.inference_mode():
        passes = [torch.cat([video.pixels for video in part]) for part in (videos[:4], videos[4:])]
        plain = [model(prepare_input(each, torch.zeros(len(each), dtype=torch.int64), CLIP)) for each in passes]
    assert np.array_equal(apart, torch.cat(plain).double())
    encoded.clear()
    np.testing.assert_allclose(score(model, videos, ["a.mp4"] * 5), apart, rtol=0, atol=1e-6)
    parts = {"uniform": [[2], [3], [5], [6]], "t2t": [[k] for k in range(8)]}
    parts = parts.get(name, [[0, 1], [2, 3], [4, 5], [6, 7]])
    distinct = {tuple(video.frames[0, part]) for video in videos[:4] for part in parts}
    assert len(distinct) < 4 * timesteps
    assert encoded == [len(distinct) if model.form == "factorised_encoder" else 4 * timesteps, timesteps]


def test_frames_that_a_short_video_repeats_are_shared_and_crops_and_files_are_not():
    model, encoded = made()
    held = np.minimum(2 * np.arange(8), 5)[None].repeat(3, axis=0)  # 0 2 4 5 5 5 5 5: 3 distinct timesteps
    videos = [view_of(i, held, crops=3) for i in range(2)]
    scores = score(model, videos, ["a.mp4", "b.mp4"], crops=3, batch_size=6)
    assert encoded == [2 * 3 * 3]
    with torch.inference_mode():
        clips = prepare_input(videos[0].pixels, torch.zeros(3, dtype=torch.int64), CLIP)
        plain = model(clips).double().mean(dim=0)
    np.testing.assert_allclose(scores, plain.expand(2, -1), rtol=0, atol=1e-6)


FILES = (
    "mmaction2__test.mp4",  # B-frames
    "media__sample_rotate_and_reflect.mp4",
    "ExoPlayer__video_1.mp4",  # rotated, with a variable frame rate
    "metadata-extra__FLIR_Thermal.mp4",  # B-frames and a variable frame rate
)


@pytest.mark.parametrize("hop", [Hop(frames=4), Hop(frames=3), Hop(seconds=0.25)], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_windows_of_real_files_have_the_scores_of_clips_of_their_own(shared_data, name, hop):
    videos = find_videos([shared_data / "videos" / name]).videos
    files = records_of_files(videos, ClassNames(tuple("abcdef")), False, None)
    data = DataConfig(num_workers=0, manifest="none")
    records = sliding_windows(files, CLIP, data, hop).records
    protocol = get_protocol("center")
    videos = list(EvalLoader(records, protocol, CLIP, data))
    model, encoded = made()
    scores = score(model, videos, records.paths)
    distinct = [
        {tuple(video.frames[0, k : k + 2]) for video in videos[first : first + 4] for k in range(0, 8, 2)}
        for first in range(0, len(videos), 4)
    ]
    assert encoded == [len(timesteps) for timesteps in distinct]
    assert sum(encoded) < 4 * len(videos) or hop.frames != 4  # frames of a timestep
    flips = get_protocol("center_4flips").flips
    assert flips == ((), (-1,), (-2,), (-2, -1))
    means = score(model, videos, records.paths, flips=flips)
    with torch.inference_mode():
        for video, scores_K, means_K in zip(videos, scores, means, strict=True):
            input_BTCHW = prepare_input(video.pixels, torch.tensor([video.color]), CLIP)
            plain = torch.cat([model(input_BTCHW.flip(axes)) for axes in flips]).double()
            np.testing.assert_allclose(scores_K, plain[0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(means_K, plain.mean(dim=0), rtol=0, atol=1e-6)
