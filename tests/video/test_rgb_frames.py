"""decord and torchcodec: the same frames as the default backend, or a refusal with its reason."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vidtl.config import DataConfig
from vidtl.errors import UserError
from vidtl.video import Box, UnreadableVideo, View, open_video

ORDER = {"decord": "seeks wrongly where frames that are out of order", "torchcodec": "miscounts frames"}
STREAMS = "seeks wrongly in transport and program streams"
DECORD_ERROR = "DECORDError"


def expected_refusals(decoder: str) -> dict[str, str]:
    refused = {
        "HMDB51_human_m__6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi": ORDER[decoder],
        "HMDB51_human_m__AdvancedBoxingTechniquesandExercises_punch_u_nm_np1_ba_med_23.avi": ORDER[decoder],
        "HMDB51_human_m__Golf_Tips_-_Hit_The_Driver_300__Yards____golf_f_nm_np1_fr_med_0.avi": ORDER[decoder],
        "media__sample-with-large-length.avi": ORDER[decoder],
        "media__sample_h264.ts": STREAMS,
        "ExoPlayer__sample_h262_mpeg_audio.ps": STREAMS,
        "torchcodec__h264_10bits.mp4": "resamples the chroma of more than 8 bits",
        "media__sample_rotate_and_reflect.mp4": "ignores mirroring",
        "imageio-binari__cockatoo.mp4": "broken frames after a seek",
    }
    if decoder == "decord":
        refused |= {
            "torchcodec__h265_video.mp4": "seeks wrongly between open groups of pictures",
            "media__sample_edit_list_only_preroll_sync_sample.mp4": "counts 17 frames where 16 decode",
            "ExoPlayer__sample_av1.mp4": DECORD_ERROR,  # decord 0.6 has no AV1 decoder
            "torchcodec__av1_video.mkv": DECORD_ERROR,
            "small__webm.webm": DECORD_ERROR,
        }
    return refused


# Half a second or more each, and nothing that the others have not.
TOO_SLOW = {
    "media__long_1080p_videoonly_lowbitrate.mp4",
    "sam2__05_default_juggle.mp4",
    "mmaction2__demo_skeleton.mp4",
}


@pytest.fixture(params=["decord", "torchcodec"])
def decoder(request: pytest.FixtureRequest, shared_data: Path) -> str:
    try:
        open_video(shared_data / "videos" / "decord__video_0.mov", request.param).close()
    except UserError as error:
        pytest.skip(str(error))
    return str(request.param)


def test_frames_equal_those_of_the_default_backend_or_the_file_is_refused(shared_data: Path, decoder: str):
    refused = {}
    for path in sorted((shared_data / "videos").iterdir()):
        if path.name in TOO_SLOW:
            continue
        try:
            difference = largest_mean_difference(path, decoder)
        except UnreadableVideo as error:
            refused[path.name] = error.reason
        else:
            # Equal but for rounding: a resize of turned frames, a change of matrix (untagged files of 720 lines).
            assert difference < 0.5, path.name
    expected = expected_refusals(decoder)
    assert set(refused) == set(expected)
    for name, reason in expected.items():
        assert reason in refused[name]


def largest_mean_difference(path: Path, decoder: str) -> float:
    with open_video(path, decoder) as video, open_video(path) as reference:
        assert (video.height, video.width, video.color) == (reference.height, reference.width, reference.color)
        np.testing.assert_array_equal(video.times_s, reference.times_s)
        last = len(video.times_s) - 1
        box = Box(video.height // 10, video.width // 7, video.height // 2, video.width // 2)
        views = [
            View(np.array(numbers), box) for numbers in ([0, last, last // 2], [last // 3, last // 3, min(1, last)])
        ]
        found, expected = (reader.read(views, (64, 48), "rgb").astype(int) for reader in (video, reference))
        return float(np.abs(found - expected).mean(axis=(2, 3, 4)).max())


def test_damaged_frames_are_never_delivered(shared_data: Path, decoder: str):
    for name, damaged in {
        "derived_truncated50_paddle_example.avi": 66,
        "decord__corrupted.mp4": 49,
        "media__sample_with_invalid_nalu.mp4": 26,
    }.items():
        with pytest.raises(UnreadableVideo, match=name), open_video(shared_data / "broken" / name, decoder) as video:
            video.read([View(np.array([damaged]), Box(0, 0, video.height, video.width))], (16, 16), "rgb")


def test_planar_frames_are_refused(shared_data: Path, decoder: str):
    with open_video(shared_data / "videos" / "decord__video_0.mov", decoder) as video:
        view = View(np.array([0]), Box(0, 0, 2, 2))
        message = rf"data.pixel_format is 'planar'; allowed with data.decoder {decoder}: 'rgb'"
        with pytest.raises(UserError, match=message):
            video.read([view], (4, 4), "planar")
    with pytest.raises(UserError, match=rf"data.pixel_format is 'planar'.*data.decoder {decoder}"):
        DataConfig(decoder=decoder)
    assert DataConfig(decoder=decoder, pixel_format="rgb").decoder == decoder


def test_another_librarys_choice_of_decords_output_type_changes_nothing(shared_data: Path):
    decord = pytest.importorskip("decord")
    with open_video(shared_data / "videos" / "decord__video_0.mov", "decord") as video:
        view = View(np.array([2, 0]), Box(0, 0, 320, 568))
        expected = video.read([view], (32, 32), "rgb")
        try:
            decord.bridge.set_bridge("torch")
            np.testing.assert_array_equal(video.read([view], (32, 32), "rgb"), expected)
        finally:
            decord.bridge.reset_bridge()


@pytest.mark.parametrize(
    ("name", "module", "advice"),
    [
        ("decord", "decord", r"is not installed .*; use 'pyav'"),
        ("torchcodec", "torchcodec.decoders", r"needs `pip install vidtl\[torchcodec\]` and FFmpeg's.*; use 'pyav'"),
    ],
)
def test_without_the_library_the_user_is_told(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, advice: str
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"data.decoder is '{name}', which {advice}"):
        open_video(shared_data / "videos" / "decord__video_0.mov", name)
