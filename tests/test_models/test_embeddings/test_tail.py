"""The learned tail and where it goes."""

import torch

from mmhiper.models import TailEmbedding


def test_only_the_last_positions_change():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 7, 4, generator=generator)
    tails = torch.randn(2, 3, 4, generator=generator)
    embedding = TailEmbedding(tails)

    result = embedding(tokens, torch.tensor([1, 0, 1]), strength=0.8)

    # written out position by position
    expected = tokens.clone()
    for row, image in enumerate([1, 0, 1]):
        for position in range(3):
            expected[row, 4 + position] = 0.8 * tails[image, position]
    assert torch.equal(result, expected)


def test_gradients_reach_the_tail_of_the_image_alone():
    embedding = TailEmbedding(torch.zeros(3, 2, 4))
    tokens = torch.ones(1, 5, 4)

    embedding(tokens, torch.tensor([1])).sum().backward()

    gradient = embedding.tail.grad
    assert torch.equal(gradient[1], torch.ones(2, 4))
    assert gradient[[0, 2]].abs().max() == 0


def test_learned_values_are_fp32_whatever_comes():
    embedding = TailEmbedding(torch.zeros(1, 2, 4, dtype=torch.float16))
    tokens = torch.ones(1, 5, 4, dtype=torch.float16)

    assert embedding.tail.dtype == torch.float32
    assert embedding(tokens, torch.tensor([0])).dtype == torch.float32


def test_the_start_values_are_copied():
    initial = torch.zeros(1, 2, 4)
    embedding = TailEmbedding(initial)

    initial.fill_(1)

    assert embedding.tail.abs().max() == 0
    assert (embedding.num_images, embedding.num_positions) == (1, 2)
