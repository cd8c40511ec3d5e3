"""decord: the same frames as the default backend, or a refusal with its reason."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vidtl.data.decoding import UnreadableVideo, View, open_video
from vidtl.data.sampling import Box
from vidtl.errors import UserError

AVI = "seeks wrongly where frames out of order have no times"
REFUSED = {
    "HMDB51_human_m__6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi": AVI,
    "HMDB51_human_m__AdvancedBoxingTechniquesandExercises_punch_u_nm_np1_ba_med_23.avi": AVI,
    "HMDB51_human_m__Golf_Tips_-_Hit_The_Driver_300__Yards____golf_f_nm_np1_fr_med_0.avi": AVI,
    "media__sample-with-large-length.avi": AVI,
    "media__sample_h264.ts": "seeks wrongly in transport and program streams",
    "ExoPlayer__sample_h262_mpeg_audio.ps": "seeks wrongly in transport and program streams",
    "torchcodec__h265_video.mp4": "seeks wrongly between open groups of pictures",
    "torchcodec__h264_10bits.mp4": "resamples the chroma of more than 8 bits",
    "media__sample_rotate_and_reflect.mp4": "ignores mirroring",
    "media__sample_edit_list_only_preroll_sync_sample.mp4": "counts 17 frames where 16 decode",
    "ExoPlayer__sample_av1.mp4": "DECORDError",  # decord 0.6 has no AV1 decoder
    "torchcodec__av1_video.mkv": "DECORDError",
    "small__webm.webm": "DECORDError",
}
# Half a second or more each, and nothing that the others have not.
TOO_SLOW = {"media__long_1080p_videoonly_lowbitrate.mp4", "imageio-binari__cockatoo.mp4"}


@pytest.fixture(autouse=True)
def _needs_decord() -> None:
    pytest.importorskip("decord")


def test_frames_equal_those_of_the_default_backend_or_the_file_is_refused(shared_data: Path):
    refused = {}
    for path in sorted((shared_data / "videos").iterdir()):
        if path.name in TOO_SLOW:
            continue
        try:
            difference = largest_mean_difference(path)
        except UnreadableVideo as error:
            refused[path.name] = error.reason
        else:
            # Equal but for rounding: a resize of turned frames, a change of matrix (untagged files of 720 lines).
            assert difference < 0.5, path.name
    assert set(refused) == set(REFUSED)
    for name, reason in REFUSED.items():
        assert reason in refused[name]


def largest_mean_difference(path: Path) -> float:
    with open_video(path, "decord") as video, open_video(path) as reference:
        assert (video.height, video.width, video.colour) == (reference.height, reference.width, reference.colour)
        np.testing.assert_array_equal(video.times_s, reference.times_s)
        last = len(video.times_s) - 1
        box = Box(video.height // 10, video.width // 7, video.height // 2, video.width // 2)
        views = [
            View(np.array(indices), box) for indices in ([0, last, last // 2], [last // 3, last // 3, 1 % (last + 1)])
        ]
        found, expected = (reader.read(views, (64, 48), "rgb").astype(int) for reader in (video, reference))
        return float(np.abs(found - expected).mean(axis=(2, 3, 4)).max())


def test_planar_frames_are_refused(shared_data: Path):
    with open_video(shared_data / "videos" / "decord__video_0.mov", "decord") as video:
        view = View(np.array([0]), Box(0, 0, 2, 2))
        with pytest.raises(UserError, match=r"data.pixel_format is 'planar'; allowed with data.decoder decord: 'rgb'"):
            video.read([view], (4, 4), "planar")


def test_another_librarys_choice_of_output_type_changes_nothing(shared_data: Path):
    import decord

    with open_video(shared_data / "videos" / "decord__video_0.mov", "decord") as video:
        view = View(np.array([2, 0]), Box(0, 0, 320, 568))
        expected = video.read([view], (32, 32), "rgb")
        try:
            decord.bridge.set_bridge("torch")
            np.testing.assert_array_equal(video.read([view], (32, 32), "rgb"), expected)
        finally:
            decord.bridge.reset_bridge()


def test_without_decord_the_user_is_told(shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(UserError, match=r"data.decoder is 'decord', which is not installed .*; use 'pyav'"):
        open_video(shared_data / "videos" / "decord__video_0.mov", "decord")
