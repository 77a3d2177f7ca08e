"""Null-text inversion: a picture in the unconditional texts."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.curriculum import CurriculumEditor
from mmhiper.models.embeddings import NullTexts
from mmhiper.registry import MODELS
from mmhiper.utils.errors import UserError


@MODELS.register_module()
class NullTextInversion(CurriculumEditor):
    """Null-text inversion (arXiv 2211.09794).

    Per timestep the unconditional text is optimised, so that guided sampling
    follows the inversion back (sec. 3.3). A baseline of StyleDiffusion,
    trained by the same curriculum with the settings of its own paper.

    Args:
        sd: The frozen model or its config.
        source_text: What the picture shows.
        num_steps: DDIM steps T.
        num_inner_steps: The most optimisation steps of a timestep.
        inner_steps: See :class:`CurriculumEditor`.
        **options: See :class:`CurriculumEditor` and
            :class:`InversionEditor`.

    Raises:
        ValueError: If a value is out of range, or there is no guidance: an
            unconditional text would have no effect.
    """

    has_own_negative = True
    learns_negative = True
    embedding: NullTexts

    def __init__(
        self,
        sd: dict[str, Any] | Backbone,
        source_text: str,
        num_steps: int = 50,
        num_inner_steps: int = 10,
        inner_steps: str = 'constant',
        **options: Any,
    ) -> None:
        super().__init__(
            sd,
            source_text,
            num_steps=num_steps,
            num_inner_steps=num_inner_steps,
            inner_steps=inner_steps,
            **options,
        )
        if self.guidance_scale <= 1:
            raise UserError(
                'NullTextInversion learns the text that guidance moves away '
                'from: `guidance_scale` must be above 1, but is '
                f'{self.guidance_scale:g}. Without guidance take '
                'DDIMInversion.'
            )
        self.embedding = NullTexts(self.condition(['']).tokens, self.num_steps)

    @override
    def negative(self, text: Conditioning, step: int) -> Conditioning:
        """The learned text of a timestep."""
        return text.with_tokens(self.embedding(len(text), step))

    @override
    def learned_condition(self) -> Conditioning:
        """The learned text of this timestep."""
        return Conditioning(self.embedding(1, self.position))
