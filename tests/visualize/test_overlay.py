"""The overlay of a video: its frames, times and sound, and other pixels only where text and the bar of time are."""

import av
import numpy as np
import pytest

from tests.refusals import assert_refusal
from tests.video.conftest import read
from tests.video.test_made import picture
from vidtl.video import UnreadableVideo, open_video
from vidtl.visualize.overlay import write_overlay

NAMES = ["running", "跑步 🏃", "$x" * 100, "d"]
VIDEOS = {
    "ExoPlayer__sample.avi": 1,  # its frame rate varies
    "ExoPlayer__sample_fragmented.mp4": 1,  # B-frames; its pictures begin after its sound
    "ExoPlayer__video_1.mp4": 1,  # rotated
    "media__sample_rotate_and_reflect.mp4": 1,
    "media__sample_edit_list_only_preroll_sync_sample.mp4": 1,
    "media__sample_h264.ts": 0,  # begins after 1.5 s
    "torchcodec__h264_10bits.mp4": 0,
    "torchcodec__nasa_13013.mp4": 2,
}


def times_of(path):
    with open_video(path) as video:
        return video.times_s


def sound_of(path):
    """Time in ms from the start of the file and content of the packets of each stream."""
    tracks = []
    with av.open(str(path)) as container:
        streams = len(container.streams.audio)
    for number in range(streams):
        with av.open(str(path)) as container:
            start_s = (container.start_time or 0) / av.time_base
            packets = [packet for packet in container.demux(audio=number) if packet.pts is not None]
            tracks.append([(float(packet.pts * packet.time_base) - start_s, bytes(packet)) for packet in packets])
    return tracks


def luma_of(path, numbers):
    planes = read(path, numbers, form="planar").astype(float)
    return planes[:, : planes.shape[1] * 2 // 3]


def psnr(first, second):
    return float(10 * np.log10(255**2 / np.mean((first - second) ** 2)))


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_times_and_sound_are_the_videos_and_only_text_and_bar_differ(shared_data, tmp_path, name):
    source, path = shared_data / "videos" / name, tmp_path / "overlay.mp4"
    times_s, seen_s = times_of(source), []
    last = len(times_s) - 1
    edges = np.array([times_s[0], *times_s[[last // 3, 2 * last // 3]], times_s[-1] + 1])
    probabilities = np.array([[0.7, 0.2, 0.1, 0], [0.1, 0.2, 0, 0.7], [np.nan] * 4])
    write_overlay(source, path, NAMES, edges, probabilities, on_frame=seen_s.append)
    np.testing.assert_allclose(times_of(path), times_s, atol=1e-6)
    np.testing.assert_array_equal(seen_s, times_s)
    expected, found = sound_of(source), sound_of(path)
    assert [[data for _, data in track] for track in found] == [[data for _, data in track] for track in expected]
    assert len(found) == VIDEOS[name]
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_allclose([time for time, _ in after], [time for time, _ in before], atol=1.1e-3)

    numbers = [last // 3 - 1, last // 3, last]
    before, after = (luma_of(file, numbers) for file in (source, path))
    height, width = before.shape[1:]
    text, rest = (slice(8, 8 + height // 6), slice(8, 8 + width // 4)), slice(height // 3, height - height // 40 - 4)
    for number in (0, 1):
        assert psnr(before[number][text], after[number][text]) < 25
    assert psnr(after[0][text], after[1][text]) < 25
    assert min(psnr(before[number][rest], after[number][rest]) for number in range(3)) > 34
    assert psnr(before[2][: height // 3], after[2][: height // 3]) > 34
    bright = (after[:, -2] > before[:, -2] / 4 + 100).mean(axis=1)
    np.testing.assert_allclose(bright, times_s[numbers] / times_s[-1], atol=0.05)


def test_odd_sizes_lose_a_row_and_sound_that_mp4_does_not_take_is_left_out(tmp_path, caplog):
    source, path = tmp_path / "odd.mkv", tmp_path / "overlay.mp4"
    with av.open(str(source), "w") as container:
        stream, sound = container.add_stream("ffv1", rate=25), container.add_stream("pcm_u8", rate=8000, layout="mono")
        stream.height, stream.width, stream.pix_fmt = 147, 151, "yuv420p"
        samples = av.AudioFrame.from_ndarray(np.full((1, 8000), 128, np.uint8), format="u8", layout="mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples) + sound.encode(None))
        for number in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, 147, 151), format="rgb24")))
        container.mux(stream.encode(None))
    write_overlay(source, path, NAMES, np.array([0.0, 1]), np.full((1, 4), np.nan))
    before, after = read(source, range(5)).astype(float), read(path, range(5))
    assert after.shape == (5, 146, 150, 3)
    assert psnr(before[:, :140, :150], after[:, :140]) > 25
    assert psnr(before[:, :140, 1:], after[:, :140]) < 25
    assert sound_of(path) == []
    assert_refusal(caplog.messages[0], source, "pcm_u8")


@pytest.mark.parametrize("name", ["decord__corrupted.mp4", "derived_truncated50_paddle_example.avi"])
def test_what_precedes_a_damaged_frame_is_kept(shared_data, tmp_path, caplog, name):
    source, path, seen_s = shared_data / "broken" / name, tmp_path / "overlay.mp4", []
    write_overlay(source, path, NAMES, np.array([0.0, 9]), np.full((1, 4), 0.25), on_frame=seen_s.append)
    assert 20 < len(seen_s) < len(times_of(source))
    np.testing.assert_array_equal(times_of(path), seen_s)
    assert_refusal(caplog.messages[0], source, f"{path} ends after {seen_s[-1]:.2f} s")


def test_a_file_without_any_frame_is_refused(shared_data, tmp_path):
    data = bytearray((shared_data / "videos" / "sam2__05_default_juggle.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 300_000] = bytes(300_000)
    (tmp_path / "broken.mp4").write_bytes(data)
    with pytest.raises(UnreadableVideo):
        write_overlay(tmp_path / "broken.mp4", tmp_path / "overlay.mp4", NAMES, np.array([0.0, 9]), np.ones((1, 4)))
    assert [file.name for file in tmp_path.iterdir()] == ["broken.mp4"]
