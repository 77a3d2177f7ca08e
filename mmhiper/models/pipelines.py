"""Editors as plain pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mmhiper.models.backbones import Backbone
from mmhiper.models.conditioning import Conditioning
from mmhiper.models.loading import quiet
from mmhiper.utils.errors import UserError


class Exports(Protocol):
    """What can leave this package: an editor, whatever it is."""

    def to_diffusers(self) -> Any:
        """See :func:`to_diffusers`."""


class Conditions(Protocol):
    """What can say what a prompt means: an editor that only conditions."""

    def to(self, device: torch.device) -> Any:
        """Moves it, with its frozen model."""

    def condition_pair(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        **options: Any,
    ) -> tuple[Conditioning, Conditioning]:
        """What guidance moves towards, and what away from."""


def to_diffusers(editor: Exports) -> Any:
    """Takes an editor out of this package, into diffusers.

    The pipeline is an unmodified one of the backbone's family, such as
    ``StableDiffusionPipeline``, without a safety checker, on the device of
    the editor. With the same scheduler, steps, guidance and noise it draws
    what ``editor.infer`` draws; where no guidance is said, it takes that of
    its family and not ``editor.default_guidance``. It shares the U-Net and
    the autoencoder with the editor, so moving one of them moves both.

    Args:
        editor: In any state of training.

    Returns:
        For Textual Inversion the pipeline, which knows the learned word and
        the loaded ones; for HiPer an :class:`EmbedsPipeline`.

    Raises:
        ValueError: If the editor does more than to condition (those that
            invert a picture, such as StyleDiffusion).

    Examples:
        >>> pipeline = mmhiper.to_diffusers(textual_inversion)
        >>> pipeline('a <cat-toy> on the beach').images[0]
        >>> hiper = mmhiper.to_diffusers(hiper_editor)
        >>> hiper.pipeline(
        ...     **hiper.embeds('a sitting dog'),
        ...     guidance_scale=hiper_editor.default_guidance).images[0]
    """
    return editor.to_diffusers()


@dataclass(frozen=True)
class EmbedsPipeline:
    """A pipeline, and what to call it with for a prompt.

    Attributes:
        pipeline: An unmodified pipeline of diffusers.
        editor: What conditions it.
    """

    pipeline: Any
    editor: Conditions

    @torch.no_grad()
    def embeds(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """The arguments of the pipeline for prompts.

        Args:
            prompt: P prompts.
            negative_prompt: What to move away from, one for all prompts or one
                each.
            **options: What the editor adds, such as ``strength``; and
                ``prompt_weighting`` of its ``infer``.

        Returns:
            ``prompt_embeds`` and ``negative_prompt_embeds``, (P, M, D); for
            Stable Diffusion XL ``pooled_prompt_embeds`` and
            ``negative_pooled_prompt_embeds``, (P, pooled width), too.

        Raises:
            ValueError: If a prompt is empty, an option out of its range, or
                the text is to vary over the steps.
        """
        # a pipeline that was moved has taken the frozen model along
        self.editor.to(self.pipeline.device)
        text, negative = self.editor.condition_pair(
            prompt, negative_prompt, **options
        )
        if text.varies:
            raise UserError(
                'A pipeline of diffusers reads one text in all steps, but '
                f'here it varies ({options or "by the config"}). Give one '
                'number, or draw with `editor.infer`.'
            )
        arguments = _named(text, '') | _named(negative, 'negative_')
        parts = self.pipeline.components
        dtype = (parts.get('unet') or parts['transformer']).dtype
        return {name: each.to(dtype) for name, each in arguments.items()}


def _named(text: Conditioning, start: str) -> dict[str, Tensor]:
    """A conditioning by the names of a pipeline's arguments."""
    arguments = {f'{start}prompt_embeds': text.tokens}
    if text.pooled is not None:
        arguments[f'{start}pooled_prompt_embeds'] = text.pooled
    return arguments


def make_pipeline(
    sd: Backbone, words: Mapping[str, Tensor] | None = None
) -> Any:
    """Makes a plain pipeline of a frozen model.

    Args:
        sd: The model, whose parts it shares.
        words: Rows (n, D) by placeholder, those of two text encoders side by
            side. With words the pipeline has tokenizers and text encoders of
            its own.

    Returns:
        That of its family, on the device of the model.
    """
    tokenizers, models = sd.tokenizers, list(sd.text_encoders.models)
    if words:
        tokenizers = deepcopy(tokenizers)
        models = [deepcopy(model).cpu() for model in models]
    sd.lay_out(torch.contiguous_format)  # that of pipelines, bit for bit
    with quiet():
        pipeline = sd.pipeline(tokenizers, models)
    if words and not hasattr(pipeline, 'load_textual_inversion'):
        raise UserError(
            f'{type(pipeline).__name__} of diffusers takes no new words. Draw '
            'with `editor.infer`.'
        )
    # set afterwards: constructors change schedulers that they think outdated
    pipeline.scheduler = sd.process.make_sampler()
    if words:
        widths = [table.shape[1] for table in sd.token_tables]
        for number, (tokenizer, model) in enumerate(
            zip(tokenizers, models, strict=True)
        ):
            rows = {
                word: each.detach().split(widths, dim=1)[number]
                for word, each in words.items()
            }
            _add_words(pipeline, tokenizer, model, rows)
    with quiet():
        return pipeline.to(sd.device)


def _add_words(
    pipeline: Any, tokenizer: Any, model: Any, words: Mapping[str, Tensor]
) -> None:
    """Gives a text encoder of a pipeline new words."""
    # new rows are drawn at random before they get their values
    with quiet(), torch.random.fork_rng(devices=[]):
        for word, rows in words.items():
            pipeline.load_textual_inversion(
                rows, token=word, tokenizer=tokenizer, text_encoder=model
            )
    # A config may leave the end mark of a text, where its pooled vector is
    # taken from, to be found as its highest id, which a new word now has.
    model.config.eos_token_id = tokenizer.eos_token_id
    inner = getattr(model, 'text_model', model)
    inner.eos_token_id = tokenizer.eos_token_id
