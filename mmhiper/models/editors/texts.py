"""The texts that editors are given."""

from __future__ import annotations

from collections.abc import Sequence

from mmhiper.models.backbones import Backbone
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import check_unicode


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Refuses empty texts, and such that no tokenizer takes.

    Args:
        name: Of the argument, for the message.

    Raises:
        ValueError: If there is none, or one is empty or no string.
    """
    if not texts:
        raise UserError(f'`{name}` must hold at least one text, got none.')
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f'`{name}` must be a text that says what is in the picture, '
                f'but got {text!r}.'
            )
        check_unicode(name, text)


def check_differs(
    sd: Backbone,
    source: str,
    target: str,
    max_tokens: int | None = None,
) -> None:
    """Refuses an edit to the text that the picture has already.

    Args:
        sd: The frozen model, which says what is the same.
        source: What the picture shows.
        target: The edit.
        max_tokens: Tokens of each that are read.

    Raises:
        ValueError: If the model reads the same in both.
    """
    ids = [sd.vocabulary.encode([t], max_tokens) for t in (source, target)]
    if (ids[0] == ids[1]).all():
        cut = (
            ''
            if max_tokens is None or source == target
            else (f' (its first {max_tokens} tokens are read)')
        )
        raise UserError(
            f'`target_text` must be another text than `source_text`, but to '
            f'the model {target!r} is the same as {source!r}{cut}: the edit '
            'would change nothing. Say in it what is to become of the picture.'
        )


def expand_negative(negative: str | Sequence[str], count: int) -> list[str]:
    """One negative prompt per prompt.

    Args:
        negative: One for all, or one each.
        count: The number of prompts.

    Raises:
        ValueError: If the numbers differ.
    """
    if isinstance(negative, str):
        return [negative] * count
    if len(negative) != count:
        raise UserError(
            f'`negative_prompt` must be one text or one for each of {count} '
            f'prompts, but got {len(negative)}.'
        )
    return list(negative)
