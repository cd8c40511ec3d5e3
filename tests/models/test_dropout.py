"""Dropout drops as often as it is asked to, anew each time, without a bias, and the same from the same seed."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the usual name)
from vidtl.models.dropout import Dropout, drop


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.97])
def test_the_share_asked_for_is_dropped_and_the_rest_scaled_up(dtype: torch.dtype, probability: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(1000, 333, dtype=dtype) + 1
    dropped = drop(x, probability)
    kept = dropped != 0
    share = kept.double().mean().item()
    assert share == pytest.approx(1 - probability, abs=5 * (probability * (1 - probability) / x.numel()) ** 0.5)
    assert dropped.dtype == dtype
    precision = torch.finfo(dtype).eps
    exact = x[kept].double() / (1 - probability)
    torch.testing.assert_close(dropped[kept].double(), exact, rtol=precision + 2**-17 / (1 - probability), atol=0)
    assert (dropped[kept].double() / exact).mean().item() == pytest.approx(1, abs=max(1e-3, 2**-17 / (1 - probability)))


def test_neighbours_rows_and_calls_are_dropped_independently() -> None:
    torch.manual_seed(0)
    first, second = (drop(torch.ones(1024, 1024), 0.5) == 0 for _ in range(2))
    for one, other in (
        (first, second),
        (first[1:], first[:-1]),
        *((first[:, n:], first[:, :-n]) for n in (1, 2, 3, 4)),
    ):
        assert (one & other).double().mean().item() == pytest.approx(0.25, abs=0.003)


def test_gradients_pass_where_numbers_do() -> None:
    x = torch.rand(50, 30, requires_grad=True)
    dropped = drop(x, 0.3)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, dropped.detach() / x.detach())


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 0), (2, 3, 7)])
def test_any_shape_and_any_order_in_memory(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape).permute(tuple(reversed(range(len(shape))))) + 1
    dropped = drop(x, 0.25)
    assert dropped.shape == x.shape
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / 0.75)


def test_the_seed_decides_whatever_the_number_of_threads() -> None:
    x, threads, results = torch.ones(300, 1000), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(7)
            results.append(drop(x, 0.1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
    assert not torch.equal(results[0], drop(x, 0.1))


@pytest.mark.parametrize("probability", [0.0, 1e-9, 1 - 1e-9, 1.0])
def test_what_16_bits_cannot_tell_from_never_or_always_is_left_to_torch(probability: float) -> None:
    x = torch.rand(100)
    torch.manual_seed(3)
    dropped = drop(x, probability)
    torch.manual_seed(3)
    assert torch.equal(dropped, F.dropout(x, probability))


def test_the_layer_is_still_outside_training() -> None:
    layer, x = Dropout(0.5), torch.ones(1000)
    assert 300 < layer(x).count_nonzero() < 700
    assert layer.eval()(x) is x
