"""Learned maps from a picture to the values of cross-attention."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init


class ValueMappers(nn.Module):
    """The mapping networks of StyleDiffusion, one per timestep.

    Entry C of docs/en/method.md: the value input of cross-attention. Each
    network turns the tokens of the picture into a scale and a shift for each
    position of a text: ``c_v = c * scale + shift`` (arXiv
    2303.15649, sec. 3).

    Args:
        num_steps: Timesteps T.
        num_image_tokens: Tokens P of the picture.
        num_positions: Positions M of a text.
        width: D, of both.

    Note:
        A network starts as the identity, scale 1 and shift 0: its last layer
        is 0 but for the scale's bias. So nothing changes before anything is
        learned, and a step that needs no correction stops early.

    Note:
        Batch normalisation sees a batch of one. Without running statistics
        it normalises over the D channels of each token in either mode, which
        is what a network that is never put into evaluation mode computes.
    """

    image_tokens: Tensor

    def __init__(
        self,
        num_steps: int,
        num_image_tokens: int,
        num_positions: int,
        width: int,
    ) -> None:
        super().__init__()
        first = _mapper(num_image_tokens, 2 * num_positions)
        self.mappers = nn.ModuleList(
            copy.deepcopy(first) for _ in range(num_steps)
        )
        self.register_buffer(
            'image_tokens', torch.zeros(1, num_image_tokens, width)
        )

    def forward(self, tokens: Tensor, step: int) -> Tensor:
        """Maps texts to values.

        Args:
            tokens: Encoded texts, (B, M, D).
            step: Which timestep, 0 is the noisiest.

        Returns:
            (B, M, D) fp32.
        """
        both = self.mappers[step](self.image_tokens)  # (1, 2M, D)
        scale, shift = both.chunk(2, dim=1)
        return tokens.float() * scale + shift

    def warm_start(self, step: int) -> None:
        """Starts a network from what the one before it has learned.

        Args:
            step: In [1, T).
        """
        self.mappers[step].load_state_dict(self.mappers[step - 1].state_dict())

    def parameters_of(self, step: int) -> list[nn.Parameter]:
        """The parameters of one network.

        Args:
            step: In [0, T).

        Returns:
            To be stepped in that timestep alone.
        """
        return list(self.mappers[step].parameters())


def _mapper(inputs: int, outputs: int) -> nn.Sequential:
    """One network; tokens are channels, so it works alike on each of D."""
    # (1, P, D) -> (1, 2M, D), the same weights every time
    convolutions = [
        skip_init(nn.Conv1d, channels, outputs, kernel_size=1)
        for channels in (inputs, outputs, outputs)
    ]
    generator = torch.Generator().manual_seed(0)
    for convolution in convolutions[:2]:
        # PyTorch's own initialisation, but of local randomness
        bound = convolution.in_channels**-0.5
        nn.init.uniform_(convolution.weight, -bound, bound, generator)
        nn.init.uniform_(convolution.bias, -bound, bound, generator)
    nn.init.zeros_(convolutions[2].weight)
    scale, shift = convolutions[2].bias.data.chunk(2)
    scale.fill_(1)
    shift.fill_(0)
    return nn.Sequential(
        convolutions[0],
        convolutions[1],
        nn.BatchNorm1d(outputs, track_running_stats=False),
        nn.LeakyReLU(),
        convolutions[2],
    )
