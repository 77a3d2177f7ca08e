"""The words that texts may have beside those of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mmhiper.io import TokenFile, read_token_file
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.utils.errors import UserError


class Words:
    """New words of a frozen model, of three kinds.

    Those that are learned, a token of each training picture, and those that
    came from files. With V known tokens id V + r is row r of all of them, in
    this order.

    Args:
        vocabularies: Of the text encoders.
        counts: How many tokens each learned word is.
        num_images: How many training pictures have a token.
        loaded: Rows of words from files, (n, D), those of two text encoders
            side by side.
        groups: How many sets of tokens each learned word has.

    Raises:
        ValueError: If a word cannot be one, or two cannot be told apart.
    """

    def __init__(
        self,
        vocabularies: Sequence[Vocabulary],
        counts: Mapping[str, int],
        num_images: int = 0,
        loaded: Mapping[str, Tensor] | None = None,
        groups: int = 1,
    ) -> None:
        self.learned = list(counts)
        self.of_images = [f'<|image{i}|>' for i in range(num_images)]
        self.loaded = dict(loaded or {})
        self.vocabularies = [each.copy() for each in vocabularies]
        for vocabulary in self.vocabularies:
            for word, count in counts.items():
                vocabulary.add(word, count, groups)
            for word in self.of_images:
                vocabulary.add(word, 1)
            for word, rows in self.loaded.items():
                vocabulary.add(word, len(rows))

    @property
    def placeholders(self) -> list[str]:
        """What prompts may use: the learned and the loaded words."""
        return [*self.learned, *self.loaded]

    def learned_in(self, text: str) -> tuple[str, ...]:
        """The learned words in a text, each once, in their own order."""
        found = self.vocabularies[0].find(text)
        return tuple(word for word in self.learned if word in found)

    def encode(
        self, texts: list[str], lengths: Mapping[str, int], group: int = 0
    ) -> list[Tensor]:
        """Token ids of texts, (B, M) per text encoder.

        Args:
            texts: B texts.
            lengths: How many tokens a word is, where not all.
            group: Which set of tokens of the learned words.

        Returns:
            Integers.
        """
        return [
            each.encode(texts, lengths=lengths, group=group)
            for each in self.vocabularies
        ]


def read_words(
    paths: Sequence[str | Path],
    rename: Mapping[str, str],
    taken: Sequence[str],
    widths: Sequence[int],
    backbone: str,
) -> dict[str, Tensor]:
    """Reads the words of embedding files of any known format.

    Args:
        paths: Files, see :mod:`mmhiper.io`.
        rename: New placeholders by those in the files.
        taken: Placeholders that there are already.
        widths: D of each text encoder.
        backbone: Whose they are, for messages.

    Returns:
        (n, D) by placeholder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no embedding, or of another width, or a
            placeholder is taken.
    """
    words: dict[str, Tensor] = {}
    for path in paths:
        tokens = read_token_file(path)
        check_widths(tokens, path, widths, backbone)
        for name in tokens.placeholders:
            placeholder = rename.get(name, name)
            if placeholder in words or placeholder in taken:
                raise UserError(
                    f'The placeholder {placeholder!r} of {str(path)!r} is '
                    'taken. Give it another one by '
                    f"`rename={{{name!r}: '<new-name>'}}`."
                )
            words[placeholder] = tokens.rows_of(name)
    return words


def check_widths(
    tokens: TokenFile,
    path: str | Path,
    widths: Sequence[int],
    backbone: str,
) -> None:
    """Refuses rows that were learned for other text encoders.

    Args:
        tokens: What a file holds.
        path: The file.
        widths: D of each text encoder.
        backbone: Whose they are, for the message.

    Raises:
        ValueError: If they differ.
    """
    wanted = ' + '.join(map(str, widths))
    if tokens.width != wanted:
        raise UserError(
            f'An embedding for {backbone!r} must be {wanted} wide, but that '
            f'of {str(path)!r} is {tokens.width} wide: it belongs to another '
            f'family, {tokens.family} (Stable Diffusion 1.x: 768, 2.x: 1024, '
            'XL: 768 + 1280, 3 with T5: 768 + 1280 + 4096; latent diffusion: '
            '1280).'
        )


def match_words(
    found: Mapping[str, Tensor], own: Sequence[str]
) -> dict[str, Tensor]:
    """Which of the words of a file are an editor's own.

    Args:
        found: Rows by the names in the file.
        own: The words of the editor.

    Returns:
        Rows by the editor's words. A single word is its single word, whatever
        the file calls it.
    """
    if len(found) == len(own) == 1:
        return {own[0]: next(iter(found.values()))}
    return {word: found[word] for word in own if word in found}
