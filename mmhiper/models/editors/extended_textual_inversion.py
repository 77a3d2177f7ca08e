"""Extended Textual Inversion: a word with a vector per attention layer."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from mmhiper.models.conditioning import Conditioning
from mmhiper.models.editors.varying_words import VaryingWords
from mmhiper.registry import MODELS


@MODELS.register_module()
class ExtendedTextualInversion(VaryingWords):
    """Extended Textual Inversion, P+ (arXiv 2303.09522).

    Each of the L cross-attention layers reads the sentence with a vector of
    its own for the new word: coarse layers learn the shape, fine ones colour
    and texture. The layers are numbered as a picture passes them; Stable
    Diffusion 1.x has 16. It takes the arguments of :class:`TextualInversion`.
    """

    @property
    @override
    def num_groups(self) -> int:
        """The number of cross-attention layers, L."""
        return self.sd.text_layers

    @override
    def arrange(self, texts: Conditioning) -> Conditioning:
        """A set for each layer: (B, 1, L, M, D)."""
        return texts.by_layer(self.num_groups)

    @override
    def condition(
        self, prompts: list[str], *, layers: Sequence[int] | None = None
    ) -> Conditioning:
        """Prompts with learned words, in all layers or in some.

        Args:
            prompts: B prompts.
            layers: ``(first, end)``: the learned words act in the layers first
                to end - 1, elsewhere their initialisers stand for them.

        Returns:
            B texts.
        """
        return self.condition_within(prompts, layers, 'layers')
