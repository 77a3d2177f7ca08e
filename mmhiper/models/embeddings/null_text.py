"""Learned unconditional texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NullTexts(nn.Module):
    """The unconditional texts of null-text inversion, one per timestep.

    Entry B of docs/en/method.md, in the unconditional branch.

    Args:
        empty: The encoded empty text, (1, M, D), where they start.
        num_steps: Timesteps T.
    """

    def __init__(self, empty: Tensor, num_steps: int) -> None:
        super().__init__()
        start = empty.detach().float()
        self.texts = nn.ParameterList(
            nn.Parameter(start.clone()) for _ in range(num_steps)
        )

    def forward(self, count: int, step: int) -> Tensor:
        """The unconditional text of a timestep.

        Args:
            count: Rows B.
            step: Which timestep, 0 is the noisiest.

        Returns:
            (B, M, D) fp32.
        """
        return self.texts[step].expand(count, -1, -1)

    @torch.no_grad()
    def warm_start(self, step: int) -> None:
        """Starts a text from the one before it.

        Args:
            step: In [1, T).
        """
        self.texts[step].copy_(self.texts[step - 1])

    def parameters_of(self, step: int) -> list[nn.Parameter]:
        """What is to be stepped in one timestep.

        Args:
            step: In [0, T).
        """
        return [self.texts[step]]
