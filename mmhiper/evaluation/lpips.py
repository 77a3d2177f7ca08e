"""Learned perceptual image patch similarity (LPIPS)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from mmhiper.evaluation.edited import Edited, EditMetric, Measures, to_unit
from mmhiper.evaluation.weights import packaged, read_weights, weight_files
from mmhiper.registry import METRICS
from mmhiper.utils.devices import best_device
from mmhiper.utils.errors import FileError

# Numbers of the first layer, by which files are told apart.
_FIRST = {
    torch.Size([64, 3, 11, 11]): 'alex',
    torch.Size([64, 3, 3, 3]): 'vgg',
}
# Packages that ship the heads of all three networks.
_HEADS = (
    ('torchmetrics', 'functional/image/lpips_models'),
    ('lpips', 'weights/v0.1'),
)
# Widths of VGG-16; 0 is a pooling.
_VGG = (*(64, 64, 0, 128, 128, 0, 256, 256, 256, 0), *(512, 512, 512, 0) * 2)
_WANTED = 'the weights of LPIPS'


class _Fire(nn.Module):
    """The block of SqueezeNet."""

    def __init__(self, width: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat(
            [self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1
        )


def _alex() -> tuple[list[nn.Module], tuple[int, ...]]:
    """AlexNet up to its last convolution, and the layers that count."""
    plan = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1)]
    plan += [(384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers: list[nn.Module] = []
    for number, (width, out, size, stride, padding) in enumerate(plan):
        layers += [nn.Conv2d(width, out, size, stride, padding), nn.ReLU()]
        if number < 2:
            layers.append(nn.MaxPool2d(3, 2))
    return layers, (1, 4, 7, 9, 11)


def _vgg() -> tuple[list[nn.Module], tuple[int, ...]]:
    """VGG-16 likewise."""
    layers: list[nn.Module] = []
    width = 3
    for out in _VGG[:-1]:
        if out:
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
            width = out
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return layers, (3, 8, 15, 22, 29)


def _squeeze() -> tuple[list[nn.Module], tuple[int, ...]]:
    """SqueezeNet 1.1 likewise."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool()]
    layers += [_Fire(64, 16, 64), _Fire(128, 16, 64), pool()]
    layers += [_Fire(128, 32, 128), _Fire(256, 32, 128), pool()]
    layers += [_Fire(256, 48, 192), _Fire(384, 48, 192)]
    layers += [_Fire(384, 64, 256), _Fire(512, 64, 256)]
    return layers, (1, 4, 7, 9, 10, 11, 12)


NETWORKS = dict(alex=_alex, vgg=_vgg, squeeze=_squeeze)


class PerceptualDistance(nn.Module):
    """The distance of pictures in the layers of a network (sec. 3).

    Unit vectors of each place and layer are compared, number by number with
    the weights of the heads (arXiv 1801.03924, eq. 1, version 0.1).

    Args:
        name: 'alex', 'vgg' or 'squeeze'.
        network: Its weights, by torchvision's names.
        heads: Weights by the names of the official code,
            ``lin0.model.1.weight`` and so on.

    Raises:
        KeyError: If a weight is missing.
        RuntimeError: If one has another shape.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, name: str, network: dict[str, Tensor], heads: dict[str, Tensor]
    ) -> None:
        super().__init__()
        layers, self.taps = NETWORKS[name]()
        self.features = nn.Sequential(*layers)
        known = {key for key in self.features.state_dict()}
        self.features.load_state_dict(
            {key: network[f'features.{key}'] for key in known}
        )
        self.heads = [
            heads[f'lin{number}.model.1.weight'].float()
            for number in range(len(self.taps))
        ]
        # those of ImageNet, for values in [-1, 1]
        for key, values in (
            ('shift', (-0.030, -0.088, -0.188)),
            ('scale', (0.458, 0.448, 0.450)),
        ):
            buffer = torch.tensor(values)[:, None, None]
            self.register_buffer(key, buffer, persistent=False)
        self.eval().requires_grad_(False)

    def maps(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """The distance at each place of each layer.

        Args:
            a: (1, 3, H, W) in [0, 1].
            b: Likewise.

        Returns:
            (1, 1, h, w) of each layer.
        """
        x = (2 * torch.cat([a, b]) - 1 - self.shift) / self.scale
        found: list[Tensor] = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                head = self.heads[len(found)].to(x.device)
                found.append(F.conv2d((unit[:1] - unit[1:]).square(), head))
        return found

    @override
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of two pictures, see :meth:`maps`; ()."""
        return torch.stack([each.mean() for each in self.maps(a, b)]).sum()

    def outside(self, a: Tensor, b: Tensor, keep: Tensor) -> Tensor:
        """The mean distance of a part of two pictures.

        Args:
            a: See :meth:`maps`.
            b: Likewise.
            keep: (H, W) bool, at least one.

        Returns:
            ().
        """
        size = keep.shape
        each = [
            F.interpolate(found, size, mode='bilinear')[0, 0]
            for found in self.maps(a, b)
        ]
        return torch.stack(each).sum(0)[keep].mean()


def load_lpips(name: str) -> tuple[PerceptualDistance, str]:
    """Loads a network with its heads.

    Args:
        name: A folder, hub id or file with AlexNet, VGG-16 or SqueezeNet 1.1
            as torchvision stores them. Heads may lie beside it; otherwise
            they are those that an installed torchmetrics or lpips ships.

    Returns:
        The distance, and what it is called.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If weights are missing, or those of something else.
    """
    network: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    for path in weight_files(name, _WANTED):
        weights = read_weights(path)
        if 'lin0.model.1.weight' in weights:
            heads = weights
        elif 'features.0.weight' in weights:
            network = weights
    first = network.get('features.0.weight')
    kind = '' if first is None else _FIRST.get(first.shape, '')
    if kind == 'vgg' and 'features.3.squeeze.weight' in network:
        kind = 'squeeze'
    if not kind:
        raise FileError(
            f'Wanted {_WANTED}, but {name!r} has no AlexNet, VGG-16 or '
            'SqueezeNet 1.1 as torchvision stores them.'
        )
    if not heads:
        heads = _packaged_heads(kind)
    try:
        distance = PerceptualDistance(kind, network, heads)
        distance(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64))
    except (KeyError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise FileError(
            f'The weights of LPIPS in {name!r} do not fit together '
            f'({kind}): {reason}. Get them again.'
        ) from error
    return distance, f'{kind} of {name}'


def _packaged_heads(kind: str) -> dict[str, Tensor]:
    """The heads that a package ships."""
    for package, folder in _HEADS:
        path: Path | None = packaged(package, f'{folder}/{kind}.pth')
        if path is not None:
            return read_weights(path)
    raise FileError(
        f'LPIPS needs the heads of {kind!r} beside the network. Put '
        f'{kind}.pth of the official code into its folder, or "pip install '
        'torchmetrics", which ships them.'
    )


@METRICS.register_module()
class LPIPS(EditMetric):
    """LPIPS (arXiv 1801.03924), whole, of the background, and to the goal.

    With a mask also ``ns_lpips``, "non-selected" (arXiv 2303.15649): the mean
    of the distance over all places outside the mask. It is not diluted where
    the mask is large, as that of two pictures is that are black there.

    Args:
        lpips: See :func:`load_lpips`. PIE-Bench takes SqueezeNet.
        **options: Of MMEngine's metric.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: See there.
    """

    def __init__(self, lpips: str, **options: Any) -> None:
        super().__init__(**options)
        distance, self.encoder = load_lpips(lpips)
        self.distance = distance.to(best_device())

    @override
    @torch.no_grad()
    def measure(self, edited: Edited) -> Measures:
        device = self.distance.shift.device

        def at_hand(picture: Any) -> Tensor:
            return to_unit(picture).to(device)

        said = {
            f'{view}lpips': float(self.distance(at_hand(a), at_hand(b)))
            for view, a, b in edited.views()
        }
        keep = edited.background
        if keep is not None:
            said['ns_lpips'] = float(
                self.distance.outside(
                    at_hand(edited.source),
                    at_hand(edited.edited),
                    torch.from_numpy(keep).to(device),
                )
            )
        return said
