"""The new words of Textual Inversion: rows of the token table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmhiper.models.embeddings.host_buffer import register_host_buffer


class TokenEmbedding(nn.Module):
    """The rows of a placeholder's new tokens, and of per-image tokens.

    Entry point A of the design: before the text encoder. These tensors are
    all that trains; the table of the vocabulary is elsewhere, and frozen.

    Args:
        initial (Tensor): Start values of the placeholder, (n, D).
        image_initial (Tensor, optional): Start values of one further token
            for each of I training pictures, (I, D).
    """

    initial: Tensor
    num_active: Tensor

    def __init__(
        self, initial: Tensor, image_initial: Tensor | None = None
    ) -> None:
        super().__init__()
        assert initial.ndim == 2, initial.shape
        self.rows = nn.Parameter(initial.detach().float().clone())
        if image_initial is None:
            self.image_rows = None
        else:
            self.image_rows = nn.Parameter(
                image_initial.detach().float().clone()
            )
        # the config makes it again, so it is in no checkpoint
        self.register_buffer(
            'initial', self.rows.detach().clone(), persistent=False
        )
        # with progressive vectors, those that came into use already
        register_host_buffer(self, 'num_active', torch.tensor(len(initial)))

    @property
    def active_rows(self) -> Tensor:
        """The rows that the placeholder stands for by now, (k, D)."""
        return self.rows[: int(self.num_active)]

    def table(self) -> Tensor:
        """All rows, the placeholder's first, (n + I, D)."""
        if self.image_rows is None:
            return self.rows
        return torch.cat([self.rows, self.image_rows])

    def drift(self) -> Tensor:
        """How far the active rows are from where they started.

        Returns:
            Tensor: Scalar, the mean over rows of the squared distance.
        """
        active = int(self.num_active)
        moved = self.active_rows - self.initial[:active]
        return moved.square().sum(1).mean()
