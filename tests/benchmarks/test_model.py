"""Models beside those of other libraries: counts, rounds, ratios."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import weights
from benchmarks.contenders import PEERS, Contender, Sizes, our_contenders, peer_contenders
from benchmarks.model import main, run_rounds, summarize
from tests.environment import RunMain
from tests.refusals import refused

TINY = Sizes(size="Ti", depth=4, num_frames=4, frame_size=96)


@pytest.fixture(scope="module")
def ours() -> dict[str, Contender]:
    return {contender.key: contender for contender in our_contenders(TINY)}


@pytest.mark.parametrize("peer", PEERS)
def test_other_libraries_take_the_same_clips_and_as_many_multiply_adds(ours: dict[str, Contender], peer: str) -> None:
    if importlib.util.find_spec(PEERS[peer][0]) is None:
        pytest.skip(f"{PEERS[peer][0]} is not installed")
    twin = ours["joint" if peer == "huggingface" else "fe"]
    for contender in peer_contenders(TINY, [peer])[0]:
        assert contender.model(torch.randn(2, 4, 3, 96, 96)).shape == (2, 400)
        assert contender.multiply_adds == pytest.approx(twin.multiply_adds, rel=0.08)  # class tokens


def test_missing_libraries_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "timm", ("no_such_package", PEERS["timm"][1]))
    assert peer_contenders(TINY, ["timm"]) == ([], ["timm"])


def test_training_counts_three_passes_without_the_gradient_of_pixels(ours: dict[str, Contender]) -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        ours["fe"].model(torch.randn(1, 4, 3, 96, 96)).sum().backward()
    assert 2 * ours["fe"].train_multiply_adds == counter.get_total_flops()


def test_every_model_has_gradients_in_every_round(ours: dict[str, Contender]) -> None:
    models = {key: ours[key].model for key in ("fe", "joint")}
    gradients: list[float] = []
    for model in models.values():
        weight = model.get_parameter("embed.proj.weight")
        weight.register_post_accumulate_grad_hook(lambda weight: gradients.append(float(weight.grad.abs().max())))
    rounds = run_rounds(models, TINY, num_rounds=1)
    assert len(gradients) == 2 * 2  # one round to warm up
    assert min(gradients) > 0  # none with a head of zeros
    assert {key: len(seconds) for key, seconds in rounds["forward"].items()} == {"fe": 1, "joint": 1}


def test_results_are_ratios_of_medians(ours: dict[str, Contender]) -> None:
    seconds = {"fe": [29.0, 30.0, 99.0], "joint": [60.0, 45.0, 44.0]}
    results = summarize([ours["fe"], ours["joint"]], {"train": seconds, "forward": seconds})
    assert results["fe"]["train"]["seconds"] == 30.0
    assert results["joint"]["train"]["time_ratio"] == pytest.approx(1.5)


@pytest.mark.parametrize(("name", "value"), [("depth", 0), ("num_frames", 3), ("frame_size", 32), ("frame_size", 100)])
def test_sizes_that_do_not_fit(name: str, value: int) -> None:
    with refused(f"--{name}", value):
        Sizes(**{name: value})


def test_command_line(run_main: RunMain, tmp_path: Path) -> None:
    options = ["--size", "Ti", "--depth", "2", "--num_frames", "2", "--frame_size", "64", "--rounds", "2"]
    output, _ = run_main(main, *options, "--peers", "--output", tmp_path / "model.json")
    assert "8 tokens after block 0" in output
    report = json.loads((tmp_path / "model.json").read_text())
    assert report["settings"]["rounds"] == 2
    models = report["results"]
    assert list(models) == ["fe", "fe_tl8at0", "fe_tl16at0", "fe_tl8at1", "fe_tl16at1", "joint"]
    assert all(len(model[kind]["rounds"]) == 2 for model in models.values() for kind in ("train", "forward"))


def test_published_weights_are_timed_with_and_without_token_learner(
    run_main: RunMain, golden: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights, "PLACES", (1,))
    monkeypatch.setattr(weights, "Sizes", SimpleNamespace)  # without a least size
    file, source = tmp_path / "weights.json", golden / "foundation/videomae_classification"
    run_main(weights.main, source, "--rounds", 1, "--tokens", 2, "--output", file)
    (results,) = json.loads(file.read_text())["results"].values()
    assert list(results) == ["none", "2at1"]
    assert results["2at1"]["multiply_add_ratio"] < 1
