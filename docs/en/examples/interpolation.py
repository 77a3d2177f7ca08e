"""Interpolation between what a picture says and what a text says."""

from __future__ import annotations

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmhiper.models import Conditioning, EmbeddingEditor, StableDiffusion
from mmhiper.registry import MODELS


class WholeText(nn.Module):
    """The owner of the learned tensor: a text at all its positions.

    Args:
        initial: Start values, (1, M, D).
    """

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.tokens = nn.Parameter(initial.float().clone())


@MODELS.register_module()
class TextInterpolation(EmbeddingEditor):
    """Imagic (arXiv 2210.09276) without its fine-tuning of the model.

    The whole encoded text of a picture is optimised to denoise the picture
    (sec. 3.2, A); an edit lies on the way from there to another text (C).

    Args:
        sd: The frozen model or its config.
        source_text: What the picture shows; the learning starts here.
        target_text: The edit that previews show.
        toward: How far to go towards the other text by default: 0 is the
            picture, 1 the plain text.
        data_preprocessor: See :class:`EmbeddingEditor`.

    Note:
        Imagic starts from the target text and has no source text.
    """

    embedding: WholeText

    def __init__(
        self,
        sd: dict | StableDiffusion,
        source_text: str,
        target_text: str,
        toward: float = 0.6,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(sd, data_preprocessor)
        self.target_text = target_text
        self.toward = toward
        self.embedding = WholeText(self.sd.encode_text([source_text]).tokens)

    def train_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The learned text, for each picture of the batch."""
        tokens = self.embedding.tokens.expand(len(data_samples), -1, -1)
        return Conditioning(tokens)

    def condition(
        self, prompts: list[str], *, toward: float | None = None
    ) -> Conditioning:
        """``toward * prompt + (1 - toward) * learned`` (eq. 3)."""
        toward = self.toward if toward is None else toward
        text = self.sd.encode_text(prompts)  # (B, M, D)
        tokens = torch.lerp(self.embedding.tokens, text.tokens, toward)
        return text.with_tokens(tokens)

    def edit_condition(
        self, data_samples: list[BaseDataElement]
    ) -> Conditioning:
        """The edit that the config describes, for each picture."""
        return self.condition([self.target_text] * len(data_samples))

    def preview_conditions(self) -> list[tuple[str, Conditioning]]:
        """The way from the picture to the text, in panels."""
        text = self.target_text
        return [
            (f'{toward:g} [{text}]', self.condition([text], toward=toward))
            for toward in (0, 0.4, 0.6, 0.8, 1)
        ]

    def example_prompt(self) -> str | None:
        """What the closing words of a training suggest to draw."""
        return self.target_text
