"""What the U-Net is conditioned on, as one small object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Encoded texts, as they travel from the text encoder to the U-Net.

    A text is mostly the same for all layers and all steps. It may vary: then
    its tokens are (B, S, L, M, D), for S stages of the noise, the noisiest
    first, and the L cross-attention layers in the order in which the picture
    passes them. Either may be 1, for what does not vary.

    Attributes:
        tokens: One vector per token position, (B, M, D) or (B, S, L, M, D).
            For the Stable Diffusion family M is 77, or a multiple of it for
            texts that are read in chunks.
        pooled: One vector per text, (B, P), for backbones that want it; None
            for Stable Diffusion 1.x and 2.x.
        values: What cross-attention takes its values from, as large as the
            tokens; None for the tokens, which always make its keys.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    values: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.tokens.ndim in (3, 5), self.tokens.shape
        assert self.pooled is None or len(self.pooled) == len(self.tokens)
        assert self.values is None or self.values.shape == self.tokens.shape

    def __len__(self) -> int:
        """The number of texts B."""
        return len(self.tokens)

    @property
    def varies(self) -> bool:
        """Whether the tokens are (B, S, L, M, D)."""
        return self.tokens.ndim == 5

    def by_layer(self, layers: int) -> Conditioning:
        """Texts of each layer as texts that vary.

        Args:
            layers: L; there are L * B texts, those of a layer together.

        Returns:
            (B, 1, L, M, D). A pooled text is the mean.
        """
        return self._varying(layers, 1)

    def by_stage(self, stages: int) -> Conditioning:
        """Texts of each stage as texts that vary.

        Args:
            stages: S; there are S * B texts, those of a stage together.

        Returns:
            (B, S, 1, M, D). A pooled text is the mean.
        """
        return self._varying(stages, 2)

    def _varying(self, count: int, axis: int) -> Conditioning:
        """B texts of so many times B, the other axis being ``axis``."""
        tokens = self.tokens.unflatten(0, (count, -1)).transpose(0, 1)
        pooled = self.pooled
        if pooled is not None:
            pooled = pooled.unflatten(0, (count, -1)).mean(0)
        return Conditioning(tokens.unsqueeze(axis), pooled)

    def at(self, timesteps: Tensor, num_timesteps: int) -> Conditioning:
        """What holds at some noise.

        Args:
            timesteps: One number, or (B,), on the CPU; fractions count as the
                integer below.
            num_timesteps: They are in [0, ``num_timesteps``).

        Returns:
            Of one stage, (B, 1, L, M, D), or what does not vary, as it is.
        """
        if not self.varies:
            return self
        count = self.tokens.shape[1]
        since = num_timesteps - 1 - timesteps.long()
        stages = (since * count // num_timesteps).clamp(0, count - 1)

        def pick(tensor: Tensor) -> Tensor:
            if not stages.ndim or count == 1:
                stage = int(stages) if not stages.ndim else 0
                return tensor[:, stage : stage + 1]
            rows = [
                one[stage : stage + 1]
                for one, stage in zip(tensor, stages.tolist(), strict=True)
            ]
            return torch.stack(rows)

        values = None if self.values is None else pick(self.values)
        return Conditioning(pick(self.tokens), self.pooled, values)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """Applies one function to all tensors."""
        pooled = None if self.pooled is None else function(self.pooled)
        values = None if self.values is None else function(self.values)
        return Conditioning(function(self.tokens), pooled, values)

    def __getitem__(self, index: slice | Tensor) -> Conditioning:
        """Picks texts by a slice or by a tensor of indices."""
        return self._map(lambda tensor: tensor[index])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """As ``Tensor.to``, for all tensors."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def repeat_interleave(self, repeats: int) -> Conditioning:
        """Repeats each text, keeping copies together.

        Args:
            repeats: Copies per text.

        Returns:
            B * repeats texts: a, a, b, b, ...
        """
        return self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def zeros(self) -> Conditioning:
        """The same shape, all zero."""
        return self._map(torch.zeros_like)

    def with_tokens(self, tokens: Tensor) -> Conditioning:
        """Replaces the token part and keeps the pooled part.

        Args:
            tokens: (B, M, D).

        Returns:
            The same texts with other token vectors.
        """
        return Conditioning(tokens, self.pooled)

    def with_values(self, values: Tensor) -> Conditioning:
        """Gives cross-attention values of their own.

        Args:
            values: (B, M, D).

        Returns:
            The same texts with them.
        """
        return Conditioning(self.tokens, self.pooled, values)

    def in_form(self, stages: int, layers: int) -> Conditioning:
        """The same texts in the form of those that vary.

        Args:
            stages: S; 1, or that of the texts.
            layers: L, likewise.

        Returns:
            (B, S, L, M, D).
        """

        def spread(tensor: Tensor) -> Tensor:
            if tensor.ndim == 3:
                tensor = tensor[:, None, None]
            return tensor.expand(-1, stages, layers, -1, -1)

        values = None if self.values is None else spread(self.values)
        return Conditioning(spread(self.tokens), self.pooled, values)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Joins batches, one after another.

        Args:
            parts: All with a pooled part or none; where only some have values,
                the others' are their tokens; where only some vary, the others
                do not in the same form.

        Returns:
            One batch.
        """
        forms = {part.tokens.shape[1:3] for part in parts if part.varies}
        if forms:
            form = tuple(map(max, zip(*forms, strict=True)))
            parts = [part.in_form(*form) for part in parts]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        assert len(pooled) in (0, len(parts))
        values = None
        if any(part.values is not None for part in parts):
            values = torch.cat(
                [
                    part.tokens if part.values is None else part.values
                    for part in parts
                ]
            )
        return Conditioning(
            torch.cat([part.tokens for part in parts]),
            torch.cat(pooled) if pooled else None,
            values,
        )
