"""Arrays of token maps against hand-made maps, and their figures: a grid, and animations opened again."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn

from tests.refusals import refused
from vidtl.visualize.map_figure import PANEL, animate, draw_maps, write_gif, write_mp4
from vidtl.visualize.token_maps import clip_token_maps, entropy_over_time, overlap_over_time, overlay, token_map_images


@pytest.fixture
def clip_THWC() -> np.ndarray:  # noqa: N802
    return np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), dtype=np.uint8)


def corner_maps(t=4, num_tokens=4):
    """Token s looks at one corner of a 3 x 4 grid only."""
    maps = np.zeros((t, num_tokens, 3, 4))
    for s, (row, column) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)][:num_tokens]):
        maps[:, s, row, column] = 0.01
    return maps


def test_heat_is_where_the_map_is_and_spans_zero_to_one(clip_THWC):
    images = token_map_images(corner_maps(), clip_THWC, 2)
    assert images.heat.shape == (4, 4, 24, 32)
    overlays = overlay(images.heat, images.frames)
    assert overlays.shape == (4, 4, 24, 32, 3)
    for s, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0), (-1, -1)]):
        assert (images.heat[s, :, row, column] == 1).all()
        assert images.heat[s].min() == 0
        cold = overlays[s, 0, -1 - row, -1 - column].astype(int)  # the opposite corner: gray, dimmed frame
        gray = 0.6 * (images.frames[0, -1 - row, -1 - column] @ [0.299, 0.587, 0.114])
        np.testing.assert_allclose(cold, gray, atol=1)


def test_upsampling_is_bilinear_between_cell_centers(clip_THWC):
    images = token_map_images(np.array([[[[0.0, 1.0]]]]), clip_THWC[:2], 2)
    np.testing.assert_allclose(images.heat[0, 0, 0], np.clip((np.arange(32) + 0.5) / 16 - 0.5, 0, 1), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_each_map_is_shown_on_the_middle_frame_of_its_tubelet(clip_THWC, length):
    t = 8 // length
    images = token_map_images(np.ones((t, 1, 2, 2)), clip_THWC, length)
    np.testing.assert_array_equal(images.frames, clip_THWC[[i * length + length // 2 for i in range(t)]])


def test_constant_maps_have_no_heat_full_entropy_and_full_overlap(clip_THWC):
    for value in (0.0, 0.25, 1.0):
        images = token_map_images(np.full((4, 2, 3, 4), value), clip_THWC, 2)
        assert not images.heat.any()
        np.testing.assert_allclose(images.entropy, [1, 1])
        assert images.overlap == pytest.approx(1)


def test_entropy_and_overlap_of_known_maps():
    corners = corner_maps()
    np.testing.assert_allclose(entropy_over_time(corners), 0, atol=1e-12)
    np.testing.assert_array_equal(overlap_over_time(corners), np.broadcast_to(np.eye(4), (4, 4, 4)))
    np.testing.assert_array_equal(entropy_over_time(np.ones((1, 1, 1, 1))), [[0]])


def test_record_of_every_timestep_and_the_means(clip_THWC):
    maps = np.zeros((2, 2, 1, 4))
    maps[0, 0, 0, :2], maps[0, 1, 0, 1:3] = 3.0, 0.3  # half of the mass is shared, whatever the scale
    maps[1] = [[[1.0]], [[0.1]]]
    record = json.loads(json.dumps(token_map_images(maps, clip_THWC, 4).record(), allow_nan=False))
    assert (record["maps"], record["timesteps"], record["frames_per_timestep"]) == (["token 1", "token 2"], 2, 4)
    np.testing.assert_allclose(record["entropy_over_time"], [[0.5, 0.5], [1, 1]])
    np.testing.assert_allclose(record["entropy"], [0.75, 0.75])
    np.testing.assert_allclose(record["overlap_over_time"], [[[1, 0.5], [0.5, 1]], np.ones((2, 2))])
    assert record["mean_overlap"] == pytest.approx(0.75)
    np.testing.assert_allclose(record["time_shares"], [[0.6, 0.6], [0.4, 0.4]])
    assert token_map_images(maps[:, :1], clip_THWC, 4).record()["mean_overlap"] is None


def test_timesteps_can_be_scaled_alike(clip_THWC):
    maps = np.zeros((2, 1, 1, 2))
    maps[0, 0, 0, 1], maps[1, 0, 0, 1] = 0.5, 1.0
    assert token_map_images(maps, clip_THWC, 4).heat.max(axis=(0, 2, 3)).tolist() == [1, 1]
    assert token_map_images(maps, clip_THWC, 4, compare_timesteps=True).heat.max(axis=(0, 2, 3)).tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("shape", "value", "length"),
    [((5, 1, 2, 2), 1, 2), ((4, 2, 2), 1, 2), ((4, 1, 2, 2), 1, 0), ((4, 1, 2, 2), -1, 2), ((4, 1, 2, 2), np.nan, 2)],
)
def test_wrong_maps_are_refused(clip_THWC, shape, value, length):
    with pytest.raises(ValueError, match="maps"):
        token_map_images(np.full(shape, float(value)), clip_THWC, length)


@pytest.mark.parametrize(("t", "num_tokens"), [(1, 1), (4, 4)])
def test_grid_is_drawn_with_all_tokens(tmp_path, clip_THWC, t, num_tokens):
    images = token_map_images(corner_maps(t, num_tokens), clip_THWC, 8 // t)
    path = tmp_path / "folder" / "tokens.png"
    draw_maps(images, path, "title $\\frac{")
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB"))
    hottest = np.abs(array.astype(int) - [252, 255, 164]).sum(-1)  # end of the color scale, under opacity
    assert len(np.unique(array.reshape(-1, 3), axis=0)) > 1000
    assert hottest.min() < 200
    assert [p.name for p in path.parent.iterdir()] == ["tokens.png"]


def test_maps_are_computed_in_evaluation_mode_and_need_a_token_learner():
    """Weights of noise from dropout would differ between two calls."""
    model, input_BTCHW = nn.Dropout(0.5), torch.rand(3, 4, 3, 8, 8)
    model.token_maps = model.forward
    first, second = clip_token_maps(model, input_BTCHW), clip_token_maps(model, input_BTCHW)
    assert first.shape == (4, 3, 8, 8)
    np.testing.assert_array_equal(first, second)
    assert model.training
    with refused("TokenLearner", "model.token_learner"):
        clip_token_maps(nn.Linear(2, 2), torch.zeros(1, 2))


RATE = Fraction(25, 2)


def pictures(num_tokens):
    """Two timesteps of three frames each, and one frame that no map covers; map s looks at place s, then elsewhere."""
    frame = np.random.default_rng(0).integers(0, 256, (1, 24, 33, 3), np.uint8)
    clip_THWC = np.repeat(frame, 7, axis=0)  # a still: frames must not merge
    maps = np.full((2, num_tokens, 2, 2), 0.01)
    for s in range(num_tokens):
        maps[0, s].flat[s % 4] = maps[1, s].flat[(s + 1) % 4] = 1.0
    return list(animate(token_map_images(maps, clip_THWC, 3), clip_THWC, "a title\nthat is 視訊 " + "long " * 40))


@pytest.mark.parametrize("num_tokens", [1, 2, 8])
def test_a_picture_per_covered_frame_of_even_size(num_tokens):
    found = np.stack(pictures(num_tokens))
    assert len(found) == 6
    assert found.shape[1] % 2 == found.shape[2] % 2 == 0
    assert found.shape[2] > 2 * PANEL
    first, second = found[:3, 44:], found[3:, 44:]  # timesteps, below the header, which counts the frames
    assert (first == first[0]).all()
    assert (second == second[0]).all()
    assert (first != second).any()


def test_the_panel_of_a_token_is_hot_where_its_map_is():
    first, *_ = pictures(2)
    panel = first[44 + 18 :][: round(PANEL * 24 / 33), 6 + PANEL + 6 :][:, :PANEL].astype(int)
    heat = panel[..., 0] - panel[..., 2]  # yellow and orange: much red, little blue
    half_h, half_w = heat.shape[0] // 2, heat.shape[1] // 2
    assert heat[: half_h // 2, : half_w // 2].mean() > 50 + heat[half_h:, half_w:].mean()


def test_files_open_again_with_every_frame(tmp_path):
    found = pictures(2)
    write_gif(found, tmp_path / "maps.gif", RATE)
    write_mp4(found, tmp_path / "maps.mp4", RATE)
    with Image.open(tmp_path / "maps.gif") as gif:
        assert (gif.info["duration"], gif.info["loop"]) == (80, 0)
        in_gif = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
    with av.open(str(tmp_path / "maps.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == RATE
        in_mp4 = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    for frames, tolerance in ((in_gif, 6), (in_mp4, 12)):
        errors = np.abs(np.stack(frames).astype(int) - np.stack(found))
        assert (errors.mean(axis=(1, 2, 3)) < tolerance).all()


def test_a_failure_leaves_no_file(tmp_path):
    bad = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.float64)]
    with pytest.raises(ValueError, match="dtype `uint8`"):
        write_mp4(bad, tmp_path / "maps.mp4", RATE)
    assert not list(tmp_path.iterdir())
