import numpy as np
import pytest
import torch

from vidtl.runtime.seeding import generator, seed_torch


def test_a_generator_is_a_function_of_its_arguments():
    first = generator(3, 1, 4).random(5)
    generator(9).random(100)
    assert np.array_equal(generator(3, 1, 4).random(5), first)
    assert generator(3, 1, 4).integers(2**32) == 4086783781  # on every machine and in every later version


@pytest.mark.parametrize(
    "other", [(4, 1, 4), (3, 4, 1), (3, 1), (3, 1, 4, 0), (3, 1, 5), (3, 1, 4 + 2**32), (3 + 2**32, 1, 4), (3, 0, 1, 4)]
)
def test_other_arguments_give_other_numbers(other):
    assert not np.array_equal(generator(*other).random(5), generator(3, 1, 4).random(5))


def test_torch_draws_follow_from_the_arguments():
    def draw(*keys):
        seed_torch(*keys)
        return torch.rand(4)

    assert torch.equal(draw(0, 7, 1), draw(0, 7, 1))
    assert len({tuple(draw(*keys).tolist()) for keys in ((0, 7, 1), (0, 7, 2), (1, 7, 1))}) == 3
