"""StyleDiffusion: a picture in the values of cross-attention."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from torch import Tensor
from typing_extensions import override

from mmhiper.models.attention import AttentionControl, MapStore
from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.curriculum import CurriculumEditor
from mmhiper.models.embeddings import ValueMappers
from mmhiper.models.image_encoder import ImageEncoder
from mmhiper.models.inversion import Inversion
from mmhiper.registry import MODELS
from mmhiper.utils.arguments import ValuesOf
from mmhiper.utils.errors import UserError


@MODELS.register_module()
class StyleDiffusion(CurriculumEditor):
    """Prompt-embedding inversion for editing (arXiv 2303.15649).

    Cross-attention takes its keys from the text and its values from the text
    scaled and shifted by the picture: per timestep a network maps the CLIP
    tokens of the picture to a scale and a shift of each position (sec. 3). The
    networks learn that guided sampling with the source text gives the picture
    back, with the attention that inverting it showed. An edit is
    prompt-to-prompt in which the source always has these values and the
    target for a fraction ``tau_v`` of the steps.

    Args:
        sd: The frozen model or its config.
        source_text: What the picture shows.
        image_encoder: ``pretrained`` and ``without_cuda`` of the CLIP image
            encoder, see :class:`ImageEncoder`. Defaults to the
            ``image_encoder/`` of the backbone.
        attention_weight: Factor on the attention term, 0 for none.
        **options: See :class:`CurriculumEditor`, whose defaults are this
            paper's (``num_inner_steps`` 20 for a quick run, 100 for quality),
            and :class:`InversionEditor`.

    Raises:
        ValueError: If a value is out of range, or the image encoder does not
            fit the backbone.
    """

    embedding: ValueMappers

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        source_text: str,
        image_encoder: Annotated[
            dict[str, Any] | None, ValuesOf(ImageEncoder)
        ] = None,
        attention_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(sd, source_text, **options)
        if attention_weight < 0:
            raise UserError(
                '`attention_weight` must not be negative, but got '
                f'{attention_weight}.'
            )
        self.attention_weight = attention_weight
        self.learns_maps = attention_weight > 0
        self.image_encoder = ImageEncoder(
            **(image_encoder or dict(pretrained=self.sd.backbone))
        )
        self.image_encoder.check_width(self.source.shape[-1])
        self.embedding = ValueMappers(
            self.num_steps,
            self.image_encoder.num_tokens,
            *self.source.shape[1:],
        )
        self._store = MapStore(self.map_layers)

    @override
    def given_arguments(self) -> dict[str, Any]:
        """With the image encoder that was really taken."""
        given = super().given_arguments()
        if given.get('image_encoder'):
            given['image_encoder'] = dict(pretrained=self.image_encoder.name)
        return given

    @override
    def positive(self, text: Conditioning, step: int) -> Conditioning:
        """A text with values that hold the picture (sec. 3)."""
        return text.with_values(self.embedding(text.tokens, step))

    @override
    def learned_condition(self) -> Conditioning:
        """The source text with the values of this timestep."""
        return self.positive(Conditioning(self.source), self.position)

    @override
    def training_controls(self) -> list[AttentionControl]:
        """Keeps the maps, if they have a term in the loss."""
        return [self._store] if self.learns_maps else []

    @override
    def invert(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> Inversion:
        """Inverts a picture and encodes it to tokens, once."""
        known = self._inversion
        inversion = super().invert(inputs, data_samples)
        if known is None:
            self.embedding.image_tokens.copy_(
                self.image_encoder.encode(inputs)
            )
        return inversion

    @override
    def loss(
        self, inputs: Tensor, data_samples: list[BaseDataElement]
    ) -> dict[str, Tensor]:
        """The latent and the attention term of one optimisation step.

        Returns:
            As :meth:`CurriculumEditor.loss`, with 'attention': the sum over
            layers of the mean squared difference between the maps and those of
            the inversion.
        """
        losses = super().loss(inputs, data_samples)
        if self.learns_maps:
            inversion = self.invert(inputs, data_samples)
            # as in the official code: step i has those of k = T - i + 1, one
            # step noisier than its own, and the first those of k = T
            wanted = inversion.maps[-max(1, self.position)]
            attention = torch.stack(
                [
                    F.mse_loss(maps, wanted[name])
                    for name, maps in self._store.maps.items()
                ]
            ).sum()
            losses['loss'] = losses['loss'] + self.attention_weight * attention
            losses['attention'] = attention.detach()
        return losses
