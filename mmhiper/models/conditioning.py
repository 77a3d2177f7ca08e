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

    Attributes:
        tokens (Tensor): One vector per token position, (B, M, D). For the
            Stable Diffusion family M is 77.
        pooled (Tensor, optional): One vector per text, (B, P), for backbones
            that want it; None for Stable Diffusion 1.x and 2.x.
        values (Tensor, optional): What cross-attention takes its values from,
            (B, M, D); None for the tokens, which always make its keys.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    values: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.tokens.ndim == 3, self.tokens.shape
        assert self.pooled is None or len(self.pooled) == len(self.tokens)
        assert self.values is None or self.values.shape == self.tokens.shape

    def __len__(self) -> int:
        """The number of texts B."""
        return len(self.tokens)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """Applies one function to all tensors.

        Args:
            function (callable): Tensor in, tensor out.

        Returns:
            Conditioning: The results, in the same places.
        """
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
            repeats (int): Copies per text.

        Returns:
            Conditioning: B * repeats texts: a, a, b, b, ...
        """
        return self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def zeros(self) -> Conditioning:
        """The same shape, all zero."""
        return self._map(torch.zeros_like)

    def with_tokens(self, tokens: Tensor) -> Conditioning:
        """Replaces the token part and keeps the pooled part.

        Args:
            tokens (Tensor): (B, M, D).

        Returns:
            Conditioning: The same texts with other token vectors.
        """
        return Conditioning(tokens, self.pooled)

    def with_values(self, values: Tensor) -> Conditioning:
        """Gives cross-attention values of their own.

        Args:
            values (Tensor): (B, M, D).

        Returns:
            Conditioning: The same texts with them.
        """
        return Conditioning(self.tokens, self.pooled, values)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Joins batches, one after another.

        Args:
            parts (Sequence[Conditioning]): All with a pooled part or none;
                where only some have values, the others' are their tokens.

        Returns:
            Conditioning: One batch.
        """
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
