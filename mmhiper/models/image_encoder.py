"""CLIP's view of a picture, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmhiper.models.autocast import no_autocast
from mmhiper.models.loading import (
    BUNDLED,
    DTYPES,
    check_weights,
    choose_backbone,
    loading,
    quiet,
)
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import printable

_MOST = 10_000  # pixels of a side, and numbers of a token
SUBFOLDER = 'image_encoder'
# Encoders as wide as the texts of a backbone family, for messages.
FITTING = {
    768: 'openai/clip-vit-base-patch16 (Stable Diffusion 1.x)',
    1024: 'openai/clip-vit-large-patch14 (Stable Diffusion 2.x)',
}


class ImageEncoder:
    """A CLIP image encoder, loaded only while it encodes.

    Its config is read at once, since the shape of what it gives decides the
    shape of what is learned; its weights are needed once per picture.

    Args:
        pretrained: A hub id or folder of a CLIP model, or a model in the
            diffusers layout with an ``image_encoder/``, or 'mini-sd'.
        without_cuda: What a machine with no CUDA device takes instead.

    Raises:
        ValueError: If it cannot be loaded, or there is none.
    """

    def __init__(
        self, pretrained: str, without_cuda: str | None = None
    ) -> None:
        self.name = choose_backbone(pretrained, without_cuda)
        self.config = self._load('CLIPVisionConfig')
        sizes = [self.config.image_size, self.config.patch_size, self.width]
        if not all(type(size) is int and 0 < size <= _MOST for size in sizes):
            raise FileError(
                f'The config of the image encoder {self.name!r} must have '
                '`image_size`, `patch_size` and `hidden_size` from 1 to '
                f'{_MOST}, but has {printable(sizes)[:80]}.'
            )

    @property
    def num_tokens(self) -> int:
        """Tokens P of a picture: one of all, and one per patch."""
        return (self.config.image_size // self.config.patch_size) ** 2 + 1

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.config.hidden_size

    def check_width(self, wanted: int) -> None:
        """Refuses an encoder that is not as wide as the text.

        Args:
            wanted: D.

        Raises:
            ValueError: If it differs; the message says which fits.
        """
        if self.width == wanted:
            return
        fits = FITTING.get(wanted, f'a CLIP image encoder {wanted} wide')
        raise UserError(
            f'The image encoder must be as wide as the text, {wanted}, but '
            f'{self.name!r} is {self.width} wide. Set `image_encoder` to one '
            f'that fits: {fits}.'
        )

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encodes pictures to all their tokens (arXiv 2303.15649, sec. 3).

        The last layer norm belongs to the first token alone in CLIP; here it
        is applied to all of them, as the method's own features are.

        Args:
            pixels: (B, 3, S, S) in [-1, 1].

        Returns:
            (B, P, width) fp32, without CLIP's projection.
        """
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        model = self._load('CLIPVisionModel').to(pixels.device).eval()
        size = self.config.image_size
        small = F.interpolate(
            pixels.float(), (size, size), mode='bicubic', antialias=True
        )
        unit = (small / 2 + 0.5).clamp(0, 1)
        mean, std = (
            torch.tensor(values, device=pixels.device).reshape(3, 1, 1)
            for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        )
        with no_autocast(pixels.device):
            tokens = model((unit - mean) / std).last_hidden_state
            # the first releases of transformers 5 have it one level deeper
            inner = getattr(model, 'vision_model', model)
            return inner.post_layernorm(tokens)

    def _load(self, kind: str) -> Any:
        """Loads the config or the model."""
        import transformers

        path = Path(BUNDLED.get(self.name, self.name)).expanduser()
        source = str(path) if path.exists() else self.name
        options = {} if 'Config' in kind else {'dtype': DTYPES['fp32']}
        fits = [f'{width}: {fit}' for width, fit in FITTING.items()]
        remedies = (
            'Set `image_encoder=dict(pretrained=...)` to a hub id or folder '
            'of a CLIP model, or to a folder in the diffusers layout with an '
            f'{SUBFOLDER}/. For texts of width {", ".join(fits)}.'
        )
        with loading(self.name, 'a CLIP image encoder', remedies), quiet():
            subfolder = _subfolder(source)
            if options:
                check_weights(source, subfolder)
            return getattr(transformers, kind).from_pretrained(
                source, subfolder=subfolder, **options
            )


def _subfolder(source: str) -> str:
    """Where in a folder or repository the image encoder lies."""
    from transformers import PretrainedConfig

    for subfolder in (SUBFOLDER, ''):
        config, _ = PretrainedConfig.get_config_dict(
            source, subfolder=subfolder
        )
        if str(config.get('model_type')).startswith('clip'):
            return subfolder
    raise FileNotFoundError('it has none.')  # for a reader's message
