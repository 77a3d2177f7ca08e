"""The words that texts may have beside those of the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mmhiper.io import TokenFile, read_token_file
from mmhiper.io.token_file import quoted
from mmhiper.models.vocabulary import Vocabulary
from mmhiper.utils.errors import UserError
from mmhiper.utils.names import same_word


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
    vocabulary: Vocabulary,
    widths: Sequence[int],
    backbone: str,
) -> dict[str, Tensor]:
    """Reads the words of embedding files of any known format.

    Args:
        paths: Files, see :mod:`mmhiper.io`.
        rename: New placeholders by those in the files.
        vocabulary: That which the words are to be added to.
        widths: D of each text encoder.
        backbone: Whose they are, for messages.

    Returns:
        (n, D) by placeholder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no embedding, or of another width, a word
            cannot be a placeholder, or none of the files has one of
            ``rename``.
    """
    words: dict[str, Tensor] = {}
    vocabulary = vocabulary.copy()
    found: list[str] = []
    for path in paths:
        tokens = read_token_file(path)
        check_widths(tokens, path, widths, backbone)
        for name in tokens.placeholders:
            placeholder = rename.get(name, name)
            rows = tokens.rows_of(name)
            try:
                vocabulary.add(placeholder, len(rows))
            except UserError as error:
                raise _not_a_word(path, name, vocabulary, error) from None
            words[placeholder] = rows
            found.append(name)
    unknown = [name for name in rename if name not in found]
    if unknown:
        raise UserError(
            f'`rename` has {quoted(unknown)}, but the files have the words '
            f'{quoted(found) or "none"}.'
        )
    return words


def _not_a_word(
    path: str | Path, name: str, vocabulary: Vocabulary, error: UserError
) -> UserError:
    """What to raise for a word of a file that cannot be used as it is."""
    new = (
        f'<{"-".join(re.findall("[^<>=,;:!?()|]+", "-".join(name.split())))}>'
    )
    if same_word(new) in map(same_word, vocabulary.placeholders):
        new = f'{new[:-1]}-2>'
    return UserError(
        f'The word {name!r} of {str(path)!r} cannot be used: {error} Rename '
        f"it by --rename '{name}={new}', in Python by "
        f'`rename={{{name!r}: {new!r}}}`.'
    )


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
        the file calls it; capitals do not matter.
    """
    if len(found) == len(own) == 1:
        return {own[0]: next(iter(found.values()))}
    same = {same_word(word): rows for word, rows in found.items()}
    return {w: same[same_word(w)] for w in own if same_word(w) in same}
