"""How an edit keeps to its source: plain values, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmhiper.utils.arguments import is_number
from mmhiper.utils.errors import UserError

EDIT_TYPES = ('replacement', 'refinement')
ALIGNMENTS = ('words', 'official')
TAUS = ('tau_v', 'tau_c', 'tau_s', 'tau_u')

# A word, several in a row, or the place of a word, counted from 0.
Word = str | int
# A fraction of the steps from the noisy end on, or where it starts and ends.
Tau = float | Sequence[float]
# Of both prompts, or (of the source, of the target).
WordsOfBoth = Word | Sequence[Word | Sequence[Word]]


@dataclass(frozen=True)
class EditOptions:
    """How an edit keeps to its source.

    Options of prompt-to-prompt (arXiv 2208.01626) and its official code;
    ``tau_v`` and ``tau_u`` are those of StyleDiffusion (arXiv 2303.15649).

    A fraction ``tau`` is that of the steps, from the noisy end on, or a pair
    ``(start, end)`` of such fractions; all are in [0, 1]. A word is written
    out ('cat', or 'black cat'), or is its place in the prompt, from 0.

    Attributes:
        edit_type: 'replacement' (word by word) or 'refinement' (words added or
            removed). By default the former for prompts of as many words, else
            the latter.
        align: How the words of both prompts correspond where their numbers of
            tokens differ: 'words' moves everything behind with them,
            'official' does as the papers' code.
        tau_v: Steps in which the edit also uses what was learned of the
            picture.
        tau_c: Steps with the source's cross-attention.
        tau_s: Steps with the source's self-attention, in the conditional
            branch.
        tau_u: Likewise in the unconditional branch; .5 for large changes of
            structure.
        blend_words: Words whose place alone changes: one word of both prompts,
            or (of the source, of the target), each a word or several.
        substruct_words: Words whose place is taken out of that.
        thresholds: Share of the largest attention from which on a place is
            that of ``blend_words``, and of ``substruct_words``.
        start_blend: Fraction of the steps after which places count; before,
            attention has not found the words.
        reweight: Factors on the attention to words of the target.
        cross_replace: ``tau_c`` of single words of the target.

    Raises:
        ValueError: If a value is out of its range.
    """

    edit_type: str | None = None
    align: str = 'words'
    tau_v: Tau = 0.5
    tau_c: Tau = 0.6
    tau_s: Tau = 0.6
    tau_u: Tau = 0.0
    blend_words: WordsOfBoth | None = None
    substruct_words: WordsOfBoth | None = None
    thresholds: Sequence[float] = (0.3, 0.3)
    start_blend: float = 0.2
    reweight: Mapping[Word, float] | Sequence[Sequence[Any]] | None = None
    cross_replace: Mapping[Word, Tau] | Sequence[Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        _check_choice('edit_type', self.edit_type, (None, *EDIT_TYPES))
        _check_choice('align', self.align, ALIGNMENTS)
        for name in TAUS:
            _check_tau(name, getattr(self, name))
        for word, tau in self.pairs('cross_replace'):
            _check_tau(f'cross_replace[{word!r}]', tau)
        for word, factor in self.pairs('reweight'):
            if not is_number(factor):
                raise UserError(
                    f'`reweight[{word!r}]` must be a number, but got '
                    f'{factor!r}.'
                )
        _check_fraction('start_blend', self.start_blend)
        if not _is_list(self.thresholds) or len(self.thresholds) != 2:
            raise UserError(
                '`thresholds` must be a pair (of `blend_words`, of '
                f'`substruct_words`), but got {self.thresholds!r}.'
            )
        for threshold in self.thresholds:
            _check_fraction('thresholds', threshold)
        self.words_of_both('blend_words')
        if self.words_of_both('substruct_words') and self.blend_words is None:
            raise UserError(
                '`substruct_words` takes places out of those of '
                '`blend_words`, which are not given.'
            )

    def pairs(self, name: str) -> list[tuple[Word, Any]]:
        """The words with a value of their own.

        Args:
            name: 'reweight' or 'cross_replace'.

        Returns:
            Words and values.

        Raises:
            ValueError: If it is neither a mapping nor pairs.
        """
        given = getattr(self, name) or {}
        pairs = list(given.items()) if isinstance(given, Mapping) else given
        if not _is_list(pairs) or not all(map(_is_word_pair, pairs)):
            raise UserError(
                f'`{name}` must give words a value each, as {{word: value}} '
                f'or [[word, value], ...], but got {given!r}.'
            )
        return [(word, value) for word, value in pairs]

    def words_of_both(
        self, name: str
    ) -> tuple[Sequence[Word], Sequence[Word]] | None:
        """Words of source and target.

        Args:
            name: 'blend_words' or 'substruct_words'.

        Returns:
            Two lists of words.

        Raises:
            ValueError: If it is neither a word nor a pair.
        """
        words = getattr(self, name)
        if words is None:
            return None
        if _is_word(words):
            return [words], [words]
        if _is_list(words) and len(words) == 2:
            old, new = ([w] if _is_word(w) else w for w in words)
            if all(
                _is_list(ws) and all(map(_is_word, ws)) for ws in (old, new)
            ):
                return list(old), list(new)
        raise UserError(
            f'`{name}` must be one word of both prompts, or a pair (of the '
            f'source, of the target), but got {words!r}.'
        )

    def plain(self) -> dict[str, Any]:
        """What is not a default, so that JSON keeps it as it is.

        Returns:
            Made of strings, numbers, lists and dicts. What names words by
            their places is a list of pairs, since JSON knows strings alone as
            keys.
        """
        defaults = {field.name: field.default for field in fields(self)}
        given = {
            name: getattr(self, name)
            for name, default in defaults.items()
            if getattr(self, name) != default
        }
        for name in ('reweight', 'cross_replace'):
            words = [word for word, _ in self.pairs(name)]
            if not all(isinstance(word, str) for word in words):
                given[name] = self.pairs(name)
        plain: dict[str, Any] = _listed(given)
        return plain


def span_of(tau: Tau, num_steps: int) -> range:
    """The steps that a fraction means.

    Cut to whole numbers as the papers' code does: 0.58 of 50 are 28, since
    that product is just below 29 in floating point.

    Args:
        tau: In [0, 1].
        num_steps: All steps.

    Returns:
        range: Of steps.
    """
    start, end = _start_and_end(tau)
    return range(int(start * num_steps), int(end * num_steps))


def crossing_span(tau: Tau, num_steps: int) -> range:
    """The steps with replaced cross-attention.

    The papers' code takes the fraction of one step more than there are.

    Args:
        tau: In [0, 1].
        num_steps: All steps T.

    Returns:
        range: Of steps, up to T + 1.
    """
    return span_of(tau, num_steps + 1)


def value_span(tau: Tau, num_steps: int) -> range:
    """The steps with values that were learned.

    They go on while the step is below ``tau * T``, which rounds up.

    Args:
        tau: In [0, 1].
        num_steps: All steps T.

    Returns:
        range: Of steps.
    """
    start, end = _start_and_end(tau)
    return range(math.ceil(start * num_steps), math.ceil(end * num_steps))


def _start_and_end(tau: Tau) -> tuple[float, float]:
    """A fraction as a pair."""
    if isinstance(tau, Sequence):
        start, end = tau
        return start, end
    return 0, tau


def _is_list(value: Any) -> bool:
    """Whether it holds values in order."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_word(value: Any) -> bool:
    """Whether it names a word."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_word_pair(pair: Any) -> bool:
    """Whether it is a word with a value."""
    return _is_list(pair) and len(pair) == 2 and _is_word(pair[0])


def _check_choice(name: str, value: Any, known: Sequence[Any]) -> None:
    """Refuses what is not known."""
    if value not in known:
        names = [each for each in known if each is not None]
        raise UserError(f'`{name}` must be one of {names}, but got {value!r}.')


def _check_fraction(name: str, value: Any) -> None:
    """Refuses what is not in [0, 1]."""
    if not (is_number(value) and 0 <= value <= 1):
        raise UserError(
            f'`{name}` is a fraction and must be in [0, 1], but got {value!r}.'
        )


def _check_tau(name: str, tau: Any) -> None:
    """Refuses what is neither a fraction nor a range of them."""
    if not _is_list(tau):
        return _check_fraction(name, tau)
    for value in tau:
        _check_fraction(name, value)
    if len(tau) != 2 or tau[0] > tau[1]:
        raise UserError(
            f'`{name}` must be a fraction of the steps or a pair (start, end) '
            f'that does not fall, but got {tau!r}.'
        )


def _listed(value: Any) -> Any:
    """Turns tuples into lists, however deep."""
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(each) for each in value]
    return value
