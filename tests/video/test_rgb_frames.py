"""decord and torchcodec: the same frames as the default backend, or a refusal with its reason."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import refused
from tests.video.conftest import read, skip_without, unreadable, view_of
from tests.video.test_broken import DAMAGED
from tests.video.test_decoding import LONG
from vidtl.config import DataConfig
from vidtl.video import UnreadableVideo, View, open_video

ORDER = "out of order"
REFUSED_BY_BOTH = {
    "HMDB51_human_m__6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi": ORDER,
    "HMDB51_human_m__AdvancedBoxingTechniquesandExercises_punch_u_nm_np1_ba_med_23.avi": ORDER,
    "HMDB51_human_m__Golf_Tips_-_Hit_The_Driver_300__Yards____golf_f_nm_np1_fr_med_0.avi": ORDER,
    "media__sample-with-large-length.avi": ORDER,
    "media__sample_h264.ts": "transport and program streams",
    "ExoPlayer__sample_h262_mpeg_audio.ps": "transport and program streams",
    "torchcodec__h264_10bits.mp4": "chroma of more than 8 bits",
    "media__sample_rotate_and_reflect.mp4": "ignores mirroring",
    "imageio-binari__cockatoo.mp4": "broken frames after a seek",
}
REFUSED_BY_DECORD = {
    "torchcodec__h265_video.mp4": "open groups of pictures",
    "media__sample_edit_list_only_preroll_sync_sample.mp4": "counts 17 frames where 16 decode",
    "ExoPlayer__sample_av1.mp4": "DECORDError",  # decord 0.6 has no AV1 decoder
    "torchcodec__av1_video.mkv": "DECORDError",
    "small__webm.webm": "DECORDError",
}
# Half a second or more each, and nothing that the others do not have.
TOO_SLOW = {LONG, "sam2__05_default_juggle.mp4", "mmaction2__demo_skeleton.mp4"}


@pytest.fixture(params=["decord", "torchcodec"])
def decoder(request: pytest.FixtureRequest, shared_data: Path) -> str:
    skip_without(request.param, shared_data / "videos" / "decord__video_0.mov")
    return str(request.param)


def test_frames_equal_those_of_the_default_backend_or_the_file_is_refused(shared_data: Path, decoder: str):
    reasons = {}
    for path in sorted((shared_data / "videos").iterdir()):
        if path.name in TOO_SLOW:
            continue
        try:
            with open_video(path, decoder) as video, open_video(path) as reference:
                for attribute in ("height", "width", "color"):
                    assert getattr(video, attribute) == getattr(reference, attribute)
                np.testing.assert_array_equal(video.times_s, reference.times_s)
                last = len(video.times_s) - 1
                first = view_of(video, [0, last, last // 2])
                views = [first, View(np.array([last // 3, last // 3, min(1, last)]), first.box)]
                found, expected = (reader.read(views, (64, 48), "rgb").astype(int) for reader in (video, reference))
        except UnreadableVideo as error:
            reasons[path.name] = error.reason
        else:
            # Equal but for rounding: a resize of turned frames, a change of matrix (untagged files of 720 lines).
            assert np.abs(found - expected).mean(axis=(2, 3, 4)).max() < 0.5, path.name
    refusals = REFUSED_BY_BOTH | (REFUSED_BY_DECORD if decoder == "decord" else {})
    assert set(reasons) == set(refusals)
    assert not {name for name in refusals if refusals[name] not in reasons[name]}


def test_damaged_frames_are_never_delivered(shared_data: Path, decoder: str):
    for name, (_, damaged, _) in DAMAGED.items():
        with unreadable(name):
            read(shared_data / "broken" / name, [damaged], (16, 16), decoder=decoder)


def test_planar_frames_are_refused(shared_data: Path, decoder: str):
    with refused("data.pixel_format", "'planar'", decoder, "'rgb'"):
        read(shared_data / "videos" / "decord__video_0.mov", [0], (4, 4), "planar", decoder=decoder)
    with refused("data.pixel_format", "'planar'", decoder):
        DataConfig(decoder=decoder)
    assert DataConfig(decoder=decoder, pixel_format="rgb").decoder == decoder


def test_the_output_type_of_decord_set_by_another_library_changes_nothing(shared_data: Path):
    decord = pytest.importorskip("decord")
    path = shared_data / "videos" / "decord__video_0.mov"
    expected = read(path, [2, 0], (32, 32), decoder="decord")
    try:
        decord.bridge.set_bridge("torch")
        np.testing.assert_array_equal(read(path, [2, 0], (32, 32), decoder="decord"), expected)
    finally:
        decord.bridge.reset_bridge()


@pytest.mark.parametrize("module", ["decord", "torchcodec.decoders"])
def test_a_missing_library_is_named(shared_data: Path, monkeypatch: pytest.MonkeyPatch, module: str):
    monkeypatch.setitem(sys.modules, module, None)
    name = module.partition(".")[0]
    with refused("data.decoder", repr(name), "'pyav'"):
        open_video(shared_data / "videos" / "decord__video_0.mov", name)
