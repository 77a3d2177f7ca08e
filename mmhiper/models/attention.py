"""Attention of a U-Net, observed and changed for a while.

    with attention_control(unet, store):
        unet(...)

The processors put in place take the values of cross-attention from other
vectors than its keys (arXiv 2303.15649, sec. 3), and hand attention maps to
controls, which keep or change them. Nothing is patched: afterwards, also
after an error, the U-Net has its own processors back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from mmhiper.models.compiling import uncompiled
from mmhiper.utils.errors import UserError

# The side of the maps that the papers look at. They carry the meaning of
# words best: finer ones are noisy, coarser ones have lost the places.
USUAL_SIDE = 16
PARTS = {'down_blocks': 'down', 'mid_block': 'mid', 'up_blocks': 'up'}


@dataclass(frozen=True)
class Layer:
    """Where an attention layer stands in its U-Net.

    Attributes:
        name: Of its processor.
        part: 'down', 'mid' or 'up'.
        cross: Whether it attends to the text, else to the picture.
        side: Side of its feature map, for square latents.
        latent_side: Side of the latents.
    """

    name: str
    part: str
    cross: bool
    side: int
    latent_side: int


def attention_layers(unet: Any, latent_side: int | None = None) -> list[Layer]:
    """Lists the attention layers of a U-Net.

    Args:
        unet: The U-Net.
        latent_side: Side of the square latents it will see, by default what it
            was trained with.

    Returns:
        In the order of its processors.
    """
    latent_side = latent_side or unet.config.sample_size
    depth = len(unet.config.block_out_channels)
    sides = [latent_side]
    for _ in range(depth - 1):
        sides.append((sides[-1] + 1) // 2)  # a convolution of stride 2

    def describe(name: str) -> Layer:
        words = name.split('.')
        part = PARTS[words[0]]
        level = depth - 1
        if part != 'mid':
            block = int(words[1])
            level = block if part == 'down' else depth - 1 - block
        return Layer(name, part, 'attn2' in words, sides[level], latent_side)

    return [describe(name) for name in unet.attn_processors]


def map_layers(
    layers: Sequence[Layer], side: int | None = None
) -> list[Layer]:
    """Chooses the cross-attention layers whose maps show where words are.

    The papers take the down and up blocks at 16x16 of Stable Diffusion 1.x.
    Other models have other resolutions: by default it is the one nearest to
    16x16 at which both the down and the up part have cross-attention (24x24
    for latents of 96x96; 8x8 for the bundled model, whose up part attends to
    the text at 8x8 and 4x4 only).

    Args:
        layers: All layers of a U-Net.
        side: Side of the maps, in place of that choice.

    Returns:
        At least one.

    Raises:
        ValueError: If the U-Net has none of that side.
    """
    sides: dict[str, set[int]] = {
        part: {layer.side for layer in layers if _shows_words(layer, part)}
        for part in ('down', 'up')
    }
    available = sorted(sides['down'] | sides['up'])
    both = sides['down'] & sides['up'] or set(available)
    if side is None and both:
        side = min(both, key=lambda each: (abs(each - USUAL_SIDE), -each))
    if side not in available:
        raise UserError(
            f'No cross-attention layer matches: `map_side` must be one of '
            f'{available}, the sides of the maps in the down and up blocks '
            f'of this U-Net, but got {side}.'
        )
    return [
        layer
        for layer in layers
        if layer.side == side and layer.cross and layer.part != 'mid'
    ]


def _shows_words(layer: Layer, part: str) -> bool:
    """Whether it is a cross-attention layer of a part."""
    return layer.cross and layer.part == part


class AttentionControl:
    """Looks at attention, or changes it; this one leaves it as it is."""

    def borrow(self, layer: Layer) -> list[int] | None:
        """Whose queries and keys each row of a batch takes.

        A row that takes both from another attends exactly as that one does,
        with values of its own: its map is replaced without being computed.

        Args:
            layer: A self-attention layer.

        Returns:
            An index for each row, or None for no change.
        """
        return None

    def wants_maps(self, layer: Layer) -> bool:
        """Whether the maps of a layer are needed; they cost memory.

        Args:
            layer: A cross-attention layer.

        Returns:
            Whether :meth:`see` is to be called.
        """
        return False

    def see(self, layer: Layer, maps: Tensor) -> Tensor:
        """Takes the maps of a cross-attention layer.

        Args:
            layer: The layer.
            maps: (B, heads, side * side, M) fp32, over M positions.

        Returns:
            The maps to go on with, the same shape.
        """
        return maps


class MapStore(AttentionControl):
    """Keeps the maps of the last forward pass, gradients included.

    Args:
        layers: Of which layers.

    Attributes:
        maps: (B, heads, side * side, M) by layer.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = frozenset(layers)
        self.maps: dict[str, Tensor] = {}

    @override
    def wants_maps(self, layer: Layer) -> bool:
        """Whether it is one of the chosen layers."""
        return layer in self.layers

    @override
    def see(self, layer: Layer, maps: Tensor) -> Tensor:
        """Keeps the maps."""
        if layer in self.layers:
            self.maps[layer.name] = maps
        return maps


class MapAverage(AttentionControl):
    """Averages maps over heads, layers and forward passes.

    Args:
        layers: Layers of one side.
        rows: Which rows of a batch: the conditional ones.
    """

    def __init__(self, layers: Sequence[Layer], rows: slice) -> None:
        self.layers = frozenset(layers)
        self.rows = rows
        self.total: Tensor | float = 0.0
        self.count = 0

    @override
    def wants_maps(self, layer: Layer) -> bool:
        """Whether it is one of the chosen layers."""
        return layer in self.layers

    @override
    def see(self, layer: Layer, maps: Tensor) -> Tensor:
        """Adds the maps to the sum."""
        if layer in self.layers:
            self.total = self.total + maps[self.rows].detach().mean(1)
            self.count += 1
        return maps

    def mean(self) -> Tensor:
        """The average so far.

        Returns:
            (rows, side, side, M), sums to 1 over M.
        """
        assert self.count and isinstance(self.total, Tensor)
        mean = self.total / self.count
        side = round(mean.shape[1] ** 0.5)
        # (rows, side * side, M) -> (rows, side, side, M)
        return mean.unflatten(1, (side, side))


class SplitAttention:
    """An attention processor with values of their own and with controls.

    Args:
        layer: Where it stands.
        controls: Asked in this order.
    """

    def __init__(
        self, layer: Layer, controls: Sequence[AttentionControl]
    ) -> None:
        self.layer = layer
        self.controls = controls

    # diffusers passes what this signature names, and nothing else
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        value_states: Tensor | None = None,
    ) -> Tensor:
        """Computes attention.

        Args:
            attn: The layer's weights.
            hidden_states: Features of the picture, (B, P, C).
            encoder_hidden_states: The text, (B, M, D); None in self-attention.
            attention_mask: Never given by this package.
            temb: Unused by layers of this kind.
            value_states: What ``to_v`` sees of the text, (B, M, D), by default
                the text itself.

        Returns:
            (B, P, C).
        """
        assert attention_mask is None
        keys = values = hidden_states
        if encoder_hidden_states is not None:
            keys = values = encoder_hidden_states
            if value_states is not None:
                values = value_states
        # (B, P, C) -> (B, heads, P, C / heads), likewise over M
        q, k, v = (
            each.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for each in (
                attn.to_q(hidden_states),
                attn.to_k(keys),
                attn.to_v(values),
            )
        )
        if self.layer.cross:
            mixed = self._cross(q, k, v, attn.scale)
        else:
            q, k = self._borrow(q, k)
            mixed = F.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, P, C)
        projection, dropout = attn.to_out
        return dropout(projection(mixed))

    def _cross(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention to the text; maps are spelled out only if wanted."""
        wanting = [c for c in self.controls if c.wants_maps(self.layer)]
        if not wanting:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)
        # (B, heads, P, d) x (B, heads, d, M) -> (B, heads, P, M)
        maps = (scale * q @ k.transpose(-1, -2)).float().softmax(-1)
        for control in wanting:
            maps = control.see(self.layer, maps)
        return maps.to(v.dtype) @ v

    def _borrow(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Gives rows the queries and keys of others."""
        for control in self.controls:
            rows = control.borrow(self.layer)
            if rows is not None:
                # a list as an index would be copied to the device first
                q, k = (
                    torch.stack([each[row] for row in rows]) for each in (q, k)
                )
        return q, k


@contextlib.contextmanager
def attention_control(
    unet: Any,
    *controls: AttentionControl,
    layers: Sequence[Layer] | None = None,
) -> Iterator[None]:
    """Puts :class:`SplitAttention` into all attention layers for a while.

    Inside, ``cross_attention_kwargs=dict(value_states=...)`` gives
    cross-attention other values than the text.

    Args:
        unet: The U-Net.
        *controls: What is to see or change attention.
        layers: Its :func:`attention_layers`, to spare the search where it is
            done again and again.

    Yields:
        None

    Raises:
        ValueError: If the U-Net has no cross-attention, or attention of
            another kind than Stable Diffusion's.
    """
    layers = attention_layers(unet) if layers is None else layers
    if not any(layer.cross for layer in layers):
        raise UserError(
            'No cross-attention layer matches: this U-Net does not listen to '
            'a text by attention, so nothing can be controlled there.'
        )
    modules = {layer: module_of(unet, layer) for layer in layers}
    for layer, attn in modules.items():
        _check_kind(layer.name, attn)
    before = {layer: attn.processor for layer, attn in modules.items()}
    try:
        # one by one: set_attn_processor searches the whole model
        for layer, attn in modules.items():
            attn.set_processor(SplitAttention(layer, controls))
        with uncompiled(unet):  # what controls do is no part of a program
            yield
    finally:
        for layer, attn in modules.items():
            attn.set_processor(before[layer])


def module_of(unet: Any, layer: Layer) -> Any:
    """The weights of a layer.

    Args:
        unet: The U-Net.
        layer: One of its attention layers.

    Returns:
        A module of diffusers.
    """
    return unet.get_submodule(layer.name.removesuffix('.processor'))


def has_split_attention(unet: Any) -> bool:
    """Whether the values of cross-attention can be given now.

    Args:
        unet: The U-Net.

    Returns:
        True inside :func:`attention_control`.
    """
    # all layers have it or none
    return any(
        isinstance(module.processor, SplitAttention)
        for module in unet.modules()
        if hasattr(module, 'processor')
    )


def _check_kind(name: str, attn: Any) -> None:
    """Refuses attention that :class:`SplitAttention` does not compute."""
    extras = [
        extra
        for extra in (
            'group_norm',
            'spatial_norm',
            'norm_q',
            'norm_k',
            'norm_cross',
            'added_kv_proj_dim',
            'residual_connection',
        )
        if getattr(attn, extra, None)
    ]
    if extras or attn.rescale_output_factor != 1:
        raise UserError(
            f'Attention control needs attention layers as in Stable '
            f'Diffusion 1.x and 2.x, but {name!r} also has '
            f'{", ".join(extras) or "a factor on its output"}. Use a '
            'backbone of that family.'
        )


def enlarge_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarges maps to a picture, each scaled to a maximum of 1.

    Args:
        maps: (B, side, side).
        size: (H, W).

    Returns:
        (B, H, W) in [0, 1].
    """
    peak = maps.amax((1, 2), keepdim=True)
    large = F.interpolate(
        (maps / peak)[:, None], size, mode='bicubic', antialias=True
    )
    return large[:, 0].clamp(0, 1)


def blend_mask(
    maps: Tensor,
    words: Tensor,
    size: tuple[int, int],
    threshold: float = 0.3,
    spread: bool = True,
) -> Tensor:
    """Where the words of two texts are: the mask of a local blend.

    Attention of the words is summed, if wanted spread to its eight neighbours,
    enlarged to the latents, and cut at a share of its maximum; the place of
    either text's words counts, as in the official code of prompt-to-prompt.

    Args:
        maps: (2, side, side, M), source and target.
        words: (2, M), 1 at the positions of the words, else 0.
        size: (h, w) of the latents.
        threshold: Share of the maximum.
        spread: Whether the neighbours of a place belong to it.

    Returns:
        (h, w) bool.
    """
    # (2, side, side, M) * (2, 1, 1, M) -> (2, side, side)
    heat = (maps * words[:, None, None]).sum(-1)[:, None]
    if spread:
        heat = F.max_pool2d(heat, 3, stride=1, padding=1)
    large = F.interpolate(heat, size)[:, 0]  # (2, h, w)
    peak = large.amax((1, 2), keepdim=True)
    return (large / peak > threshold).any(0)
