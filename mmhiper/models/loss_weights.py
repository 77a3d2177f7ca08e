"""What a timestep counts in the denoising loss."""

from __future__ import annotations

import torch
from torch import Tensor

from mmhiper.utils.devices import has_float64
from mmhiper.utils.errors import UserError


def check_loss_weights(
    noise_offset: float, min_snr_gamma: float | None, debiased: bool
) -> None:
    """Refuses options of the loss that are out of range.

    Args:
        noise_offset: See :class:`EmbeddingEditor`.
        min_snr_gamma: Likewise.
        debiased: Likewise.

    Raises:
        ValueError: If one is, or both weights are asked for.
    """
    if noise_offset < 0:
        raise UserError(
            f'`noise_offset` must not be negative, but got {noise_offset}.'
        )
    if min_snr_gamma is not None and min_snr_gamma <= 0:
        raise UserError(
            f'`min_snr_gamma` must be above 0, but got {min_snr_gamma}. The '
            'paper takes 5; None weighs all timesteps alike.'
        )
    if min_snr_gamma is not None and debiased:
        raise UserError(
            '`min_snr_gamma` and `debiased` are two weights of the same loss: '
            'give one of them.'
        )


def snr_weights(
    alphas_cumprod: Tensor,
    timesteps: Tensor,
    prediction_type: str,
    min_snr_gamma: float | None = None,
    debiased: bool = False,
) -> Tensor:
    """The weight of each picture's mean squared error.

    With SNR = abar / (1 - abar), an error of the noise weighs
    ``min(SNR, gamma) / SNR`` (arXiv 2303.09556) or ``1 / sqrt(SNR)`` (arXiv
    2310.08442). The squared error of a predicted velocity is ``(SNR + 1) /
    SNR = 1 / abar`` times that of the noise which it implies, so its weight
    is abar times that of the noise: the objective is the same.

    Args:
        alphas_cumprod: abar of every timestep, (T,).
        timesteps: (B,) integers.
        prediction_type: 'epsilon' or 'v_prediction'.
        min_snr_gamma: gamma.
        debiased: Whether to take the second one.

    Returns:
        (B,) fp32, ones where none is asked for; where abar is.
    """
    device = alphas_cumprod.device
    if min_snr_gamma is None and not debiased:
        return torch.ones(len(timesteps), device=device)
    abar = alphas_cumprod[timesteps.to(device, non_blocking=True)]
    if has_float64(device):
        abar = abar.double()
    snr = abar / (1 - abar)
    velocity = prediction_type == 'v_prediction'
    if debiased:
        # abar / sqrt(SNR) = sqrt(abar * (1 - abar))
        weights = (abar * (1 - abar)).sqrt() if velocity else snr.rsqrt()
    else:
        assert min_snr_gamma is not None
        # as min(1, gamma / SNR): 1, not 0 / 0, where SNR is 0
        weights = (min_snr_gamma / snr).clamp(max=1)
        weights = weights * abar if velocity else weights
    return weights.float()
