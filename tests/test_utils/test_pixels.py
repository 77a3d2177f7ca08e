"""From tensors to pictures."""

import numpy as np
import torch

from mmhiper.utils.pixels import overlay_heat, to_pil, to_uint8


def test_the_range_is_mapped_and_clamped():
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).expand(3, 1, 5)

    values = to_uint8(pixels)[0, 0].tolist()

    assert values == [0, 0, 128, 255, 255]


def test_channels_and_axes_are_kept():
    pixels = torch.full((3, 4, 6), -1.0)
    pixels[0, 1, 5] = 1.0  # red, second row, last column

    image = to_pil(pixels)

    assert image.size == (6, 4)
    assert image.mode == 'RGB'
    assert image.getpixel((5, 1)) == (255, 0, 0)
    assert np.asarray(image).sum() == 255
    assert np.array_equal(np.asarray(to_pil(to_uint8(pixels))), image)


def test_heat_is_blue_where_cold_and_red_where_hot():
    grey = torch.zeros(3, 1, 3)
    heat = torch.tensor([[0.0, 0.5, 1.0]])

    cold, warm, hot = np.asarray(overlay_heat(grey, heat))[0].astype(int)

    assert cold[2] > cold[0] and cold[2] > cold[1]
    assert warm[1] > warm[0] and warm[1] > warm[2]
    assert hot[0] > hot[1] and hot[0] > hot[2]
