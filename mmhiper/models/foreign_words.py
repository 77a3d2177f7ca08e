"""Words in a text that look learned, but that nothing has loaded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable

from mmhiper.models.vocabulary import Vocabulary
from mmhiper.utils.errors import shortened

# <sketchy>, and how ComfyUI names the file of a word
_LOOKS_LEARNED = re.compile(r'<[^<>\s]+>|\bembedding:[^\s,()<>]+', re.I)
_OTHER_MODELS = ('<lora:', '<lyco:', '<hypernet:')  # of the A1111 web UI


def warn_unknown(texts: Iterable[str], vocabulary: Vocabulary) -> None:
    """Warns about words that are drawn as the letters they are written with.

    Args:
        texts: Prompts, negative ones too.
        vocabulary: With the placeholders that are there.
    """
    for text in dict.fromkeys(texts):
        for name, placeholder in vocabulary.find_elsewhere(text).items():
            warnings.warn(
                f'{name!r} in {shortened(text)} is what a file calls a word '
                f'that is called {placeholder!r} here. Write that.',
                stacklevel=3,
            )
        for found in dict.fromkeys(_LOOKS_LEARNED.findall(text)):
            # also marks of the tokenizer's own, such as <|endoftext|>
            known_here = vocabulary.find(found)
            if known_here or len(vocabulary.pieces(found)) == 1:
                continue
            if found in vocabulary.called_elsewhere:
                continue
            remedy = 'Load its file (--embedding FILE, `load_embeddings`)'
            if found.lower().startswith(_OTHER_MODELS):
                remedy = 'Models of that kind are not read from a prompt'
            known = ', '.join(vocabulary.placeholders) or 'none'
            warnings.warn(
                f'{found!r} in {shortened(text)} is no word that is loaded, '
                f'so it is read as letters. {remedy}, or take it out. '
                f'Known words: {known}.',
                stacklevel=3,
            )
