"""Random numbers that depend on what they are for."""

import pytest
import torch

from mmhiper.utils.randomness import draw_noise, generator_of


def first_number(*origin) -> float:
    return torch.rand(1, generator=generator_of(*origin)).item()


@pytest.mark.usefixtures('untouched_global_generators')
def test_the_origin_is_all_that_matters():
    assert first_number(1, 'a', 2) == first_number(1, 'a', 2)
    origins = [(1, 'a', 2), (2, 'a', 2), (1, 'b', 2), (1, 'a', 3), (1, 'a')]
    assert len({first_number(*origin) for origin in origins}) == 5
    # a checkpoint that a later version resumes must draw on as before: 24
    # bits of an integer, the same on every machine
    assert first_number(200000, 'picture', 7) == pytest.approx(0.8958238)


def test_neighbouring_iterations_are_independent():
    numbers = torch.stack(
        [draw_noise((64,), generator_of(0, 'a', i)) for i in range(64)]
    )

    assert abs(numbers.mean()) < 0.06
    assert torch.corrcoef(numbers).fill_diagonal_(0).abs().max() < 0.6
    assert 0.9 < numbers.std() < 1.1


def test_one_generator_for_all_or_one_each():
    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    each = draw_noise((2, 3), [seeded(1), seeded(2)])

    assert torch.equal(each[1], draw_noise((1, 3), seeded(2))[0])
    assert draw_noise((2, 3), seeded(1)).shape == (2, 3)
    with pytest.raises(ValueError, match='each of 3 pictures, but has 2'):
        draw_noise((3, 3), [seeded(1), seeded(2)])
