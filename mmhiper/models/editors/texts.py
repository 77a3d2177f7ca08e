"""The texts that editors are given."""

from __future__ import annotations

from collections.abc import Sequence

from mmhiper.utils.errors import UserError
from mmhiper.utils.names import check_unicode


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Refuses empty texts, and such that no tokenizer takes.

    Args:
        name (str): Of the argument, for the message.
        texts (Sequence[str]): Texts.

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


def expand_negative(negative: str | Sequence[str], count: int) -> list[str]:
    """One negative prompt per prompt.

    Args:
        negative (str or Sequence[str]): One for all, or one each.
        count (int): The number of prompts.

    Returns:
        list[str]: As many.

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
