"""Distances of pictures by their pixels."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from mmhiper.evaluation.edited import Edited, EditMetric, Measures, to_unit
from mmhiper.registry import METRICS

SMALLEST = 1e-10  # mean squared error; equal pictures have 100 dB


def mse(a: Tensor, b: Tensor) -> float:
    """Mean squared error.

    Args:
        a: (1, 3, H, W) in [0, 1].
        b: Likewise.
    """
    return float((a - b).square().mean())


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio.

    Args:
        a: (1, 3, H, W) in [0, 1].
        b: Likewise.

    Returns:
        In dB, at most 100.
    """
    error = torch.tensor(max(mse(a, b), SMALLEST))
    return float(-10 * torch.log10(error))


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al., 2004).

    Of a window around each pixel with Gaussian weights (11 pixels, a standard
    deviation of 1.5), mirrored at the borders, the mean over pixels and
    colours; as torchmetrics has it.

    Args:
        a: (1, 3, H, W) in [0, 1], H and W at least 6.
        b: Likewise.

    Returns:
        In [-1, 1].
    """
    near = torch.arange(-5.0, 6.0).div(1.5).square().div(-2).exp()
    window = torch.outer(near, near) / near.sum() ** 2

    def mean(x: Tensor) -> Tensor:
        wide = F.pad(x, (5, 5, 5, 5), 'reflect')
        return F.conv2d(wide.transpose(0, 1), window[None, None])

    tiny, small = 0.01**2, 0.03**2
    mean_a, mean_b = mean(a), mean(b)
    var_a = (mean(a * a) - mean_a**2).clamp_min(0)
    var_b = (mean(b * b) - mean_b**2).clamp_min(0)
    both = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + tiny) / (mean_a**2 + mean_b**2 + tiny)
    return float((light * (2 * both + small) / (var_a + var_b + small)).mean())


class _PixelMetric(EditMetric):
    """A distance of each view of an edit."""

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor) -> float:
        """Of two pictures, (1, 3, H, W) in [0, 1]."""

    @override
    def measure(self, edited: Edited) -> Measures:
        name = type(self).__name__.lower()
        return {
            f'{view}{name}': self.distance(to_unit(a), to_unit(b))
            for view, a, b in edited.views()
        }


@METRICS.register_module()
class MSE(_PixelMetric):
    """Mean squared error, of values in [0, 1]."""

    @override
    def distance(self, a: Tensor, b: Tensor) -> float:
        return mse(a, b)


@METRICS.register_module()
class PSNR(_PixelMetric):
    """Peak signal-to-noise ratio in dB, see :func:`psnr`."""

    @override
    def distance(self, a: Tensor, b: Tensor) -> float:
        return psnr(a, b)


@METRICS.register_module()
class SSIM(_PixelMetric):
    """Structural similarity, see :func:`ssim`."""

    @override
    def distance(self, a: Tensor, b: Tensor) -> float:
        return ssim(a, b)
