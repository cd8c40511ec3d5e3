"""The benchmark of models: what is counted, what is told, and the tool as a user runs it."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vidtl.benchmark.contenders import (
    PEERS,
    REFERENCE,
    BenchmarkSettings,
    Contender,
    our_contenders,
    peer_contenders,
)
from vidtl.benchmark.figures import figures_of, goals_of, gpu_peak
from vidtl.benchmark.rounds import Rounds, product_shapes, run_rounds
from vidtl.errors import UserError

TINY = BenchmarkSettings(size="Ti", depth=4, num_frames=4, frame_size=96)
INSTALLED = [peer for peer, (package, _) in PEERS.items() if importlib.util.find_spec(package)]


@pytest.fixture(scope="module")
def ours() -> dict[str, Contender]:
    return {contender.key: contender for contender in our_contenders(TINY)}


@pytest.fixture(autouse=True)
def _same_number_of_threads() -> Iterator[None]:
    """The tool sets it for its process, which here is also that of other tests."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_stages_lie_at_quarters_of_the_depth(ours: dict[str, Contender]) -> None:
    learners = [f"fe_tl{tokens}at{after}" for after in range(4) for tokens in (8, 16)]
    assert list(ours) == ["fe", *learners, "joint"]


@pytest.mark.parametrize("peer", PEERS)
def test_peers_do_the_work_of_our_models(ours: dict[str, Contender], peer: str) -> None:
    """Same clips in, same scores out, and as many multiply-adds but for class tokens."""
    if peer not in INSTALLED:
        pytest.skip(f"{PEERS[peer][0]} is not installed; pip install -e '.[bench]'")
    twin = ours["joint" if peer == "huggingface" else REFERENCE]
    peers, left_out = peer_contenders(TINY, [peer])
    assert not left_out
    clips = torch.randn(2, 4, 3, 96, 96)
    for contender in peers:
        assert contender.model(clips).shape == twin.model(clips).shape
        assert contender.multiply_adds == pytest.approx(twin.multiply_adds, rel=0.08)


def test_missing_libraries_are_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "timm", ("no_such_package", PEERS["timm"][1]))
    assert peer_contenders(TINY, ["timm"]) == ([], ["timm"])


def test_training_counts_three_passes_without_the_pixels_gradient(ours: dict[str, Contender]) -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        ours[REFERENCE].model(torch.randn(1, 4, 3, 96, 96)).sum().backward()
    assert 2 * ours[REFERENCE].train_multiply_adds == counter.get_total_flops()


def test_every_model_has_gradients_and_its_turns(ours: dict[str, Contender]) -> None:
    models = {key: ours[key].model for key in (REFERENCE, "joint")}
    gradients: list[float] = []
    for model in models.values():
        weight = model.get_parameter("embed.proj.weight")
        weight.register_post_accumulate_grad_hook(lambda weight: gradients.append(float(weight.grad.abs().max())))
    rounds = run_rounds(models, TINY, torch.device("cpu"), None, num_rounds=2)
    assert len(gradients) == 2 * 3  # one warm-up round
    assert min(gradients) > 0  # a head of zeros would have passed none down
    for seconds in (rounds.train, rounds.forward):
        assert {key: len(turns) for key, turns in seconds.items()} == {REFERENCE: 2, "joint": 2}
    assert rounds.products.keys() == product_shapes(TINY).keys()
    assert min(min(turns) for turns in (*rounds.train.values(), *rounds.products.values())) > 0


def _contender(key: str, multiply_adds: int) -> Contender:
    return Contender(
        key=key,
        title=key,
        model=torch.nn.Identity(),
        multiply_adds=multiply_adds,
        train_multiply_adds=3 * multiply_adds,
        num_learned_tokens=8 if "_tl" in key else 0,
    )


def _full_size(learner_seconds: float) -> tuple[list[Contender], Rounds, BenchmarkSettings]:
    """Times made up so that products run at 100 and the factorised encoder at 90 multiply-adds a second."""
    settings = BenchmarkSettings(depth=12)
    keys = [REFERENCE] + [f"fe_tl{tokens}at{after}" for tokens in (8, 16) for after in (3, 6)]
    contenders = [_contender(key, 900 if key == REFERENCE else 300) for key in keys]
    contenders += [_contender("vit_pytorch", 900), _contender("vit_pytorch_written_out", 900)]
    train = {key: [learner_seconds] for key in keys} | {REFERENCE: [29.0, 30.0, 99.0]}
    train |= {"vit_pytorch": [60.0], "vit_pytorch_written_out": [33.0]}
    products = {name: [rows * inner * outer / 100] for name, (rows, inner, outer) in product_shapes(settings).items()}
    return contenders, Rounds(train, dict(train), products), settings


def test_figures_are_ratios_of_medians() -> None:
    contenders, rounds, settings = _full_size(learner_seconds=12.0)
    reference, learner, *_ = figures_of(contenders, rounds, settings, gpu_peak=None)
    assert reference.train.seconds == 30.0
    assert reference.train.product_share == pytest.approx(0.9)
    assert reference.forward.product_share == pytest.approx(0.3)
    assert reference.train.flop_share is None
    assert learner.train.time_ratio == pytest.approx(0.4)
    assert learner.overhead == pytest.approx(0.4 / (300 / 900))
    on_gpu = figures_of(contenders, rounds, settings, gpu_peak=360.0)
    assert on_gpu[0].train.flop_share == pytest.approx(0.5)


@pytest.mark.parametrize(("learner_seconds", "reached"), [(8.9, True), (17.0, False)])
def test_goals_are_told_as_they_are(learner_seconds: float, reached: bool) -> None:
    contenders, rounds, settings = _full_size(learner_seconds)
    goals = {goal.title: goal for goal in goals_of(figures_of(contenders, rounds, settings, None), settings, "fp32")}
    assert goals["share of the products' speed"].reached
    assert goals["times as fast as vit_pytorch at its fastest"].value == pytest.approx(1.1)
    assert goals["times as fast as vit_pytorch at its fastest"].reached
    learner = [goal.reached for title, goal in goals.items() if "tokens after" in title or "time/GMAC" in title]
    assert learner == [reached] * 4


def test_goals_belong_to_the_published_size() -> None:
    contenders, rounds, settings = _full_size(8.9)
    figures = figures_of(contenders, rounds, settings, None)
    assert not list(goals_of(figures, BenchmarkSettings(depth=12, frame_size=112), "fp32"))


def test_peaks_of_gpus() -> None:
    assert gpu_peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert gpu_peak("NVIDIA H100 PCIe", "bf16") == 756e12
    assert gpu_peak("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert gpu_peak("NVIDIA H100 80GB HBM3", "fp32") is None
    assert gpu_peak("AMD EPYC", "bf16") is None


@pytest.mark.parametrize("change", [{"depth": 0}, {"num_frames": 3}, {"frame_size": 32}, {"frame_size": 100}])
def test_sizes_that_do_not_fit(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(change))} is {next(iter(change.values()))}; allowed"):
        BenchmarkSettings(**change)


def test_the_tool_tells_ratios_and_writes_every_round(
    run_main: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    from benchmark import main

    output = tmp_path / "model.json"
    options = ["--size", "Ti", "--depth", "1", "--num_frames", "2", "--frame_size", "64", "--rounds", "2"]
    code, told, errors = run_main(main, "model", *options, "--precision", "fp32", "--peers", "--output", output)
    assert (code, errors) == (0, "")
    assert "8 tokens after block 0" in told
    assert "train ms" not in told or torch.cuda.is_available()
    report = json.loads(output.read_text())
    assert report["command"].startswith("python tools/benchmark.py model --size Ti")
    assert report["settings"]["rounds"] == 2
    assert report["versions"]["torch"]
    models = report["results"]["fp32"]["models"]
    assert list(models) == ["fe", "fe_tl8at0", "fe_tl16at0", "joint"]
    assert all(len(model[kind]["rounds"]) == 2 for model in models.values() for kind in ("train", "forward"))
    assert models["fe"]["train"]["time_ratio"] == 1.0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--rounds", "0", "--rounds is 0; allowed: 1 or more"),
        ("--output", "no/such/folder.json", "does not exist"),
        ("--output", ".", "--output is ., which is a folder; allowed: a file to write"),
        ("--peers", "tim", "choose from"),
    ],
)
def test_mistakes_take_one_line(
    run_main: Callable[..., tuple[int, str, str]], option: str, value: str, message: str
) -> None:
    from benchmark import main

    code, _, errors = run_main(main, "model", option, value)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
