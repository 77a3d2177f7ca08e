"""The learned tail of a conditioning: its last N positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TailEmbedding(nn.Module):
    """The personalised part of HiPer: the last N token positions.

    Entry B of docs/en/method.md: after the text encoder. One tail per source
    image, all in one tensor.

    Args:
        initial: Start values, (K, N, D), for K source images, N positions and
            conditioning width D. Kept in fp32 whatever the dtype of the frozen
            model, since Adam's steps of 5e-3 would be rounded away in half
            precision.
    """

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        assert initial.ndim == 3, initial.shape
        # the slice of an encoded text has gaps, which a plain clone keeps
        tail = initial.detach().float()
        self.tail = nn.Parameter(
            tail.clone(memory_format=torch.contiguous_format)
        )

    @property
    def num_images(self) -> int:
        """The number of source images K."""
        return self.tail.shape[0]

    @property
    def num_positions(self) -> int:
        """The number of learned positions N."""
        return self.tail.shape[1]

    def forward(
        self, tokens: Tensor, images: Tensor, strength: float = 1.0
    ) -> Tensor:
        """Puts the learned tail in place of a text's last N positions.

        Args:
            tokens: Encoded texts, (B, M, D).
            images: Which source image's tail, (B,) integers in [0, K).
            strength: Factor on the tail (arXiv 2303.08767, eq. 5).

        Returns:
            (B, M, D) fp32.
        """
        content = tokens[:, : tokens.shape[1] - self.num_positions]
        tail = strength * self.tail[images]
        # (B, M-N, D) ++ (B, N, D) -> (B, M, D)
        return torch.cat([content.float(), tail], dim=1)
