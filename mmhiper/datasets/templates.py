"""Templates of sentences about pictures, and captions beside pictures."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmhiper.utils.errors import FileError, MissingFileError, UserError
from mmhiper.utils.names import word_pattern
from mmhiper.utils.shipped import or_shipped
from mmhiper.utils.text_files import lines_of, read_text

# One or several sentences, or a file of them; by backbone where they differ.
Templates = str | Sequence[str] | Mapping[str, str | Sequence[str]]
Prompts = tuple[str, ...] | dict[str, tuple[str, ...]]
DEFAULT = 'default'
# Of a caption beside its picture: the A1111 web UI's, and kohya's.
CAPTION_SUFFIXES = ('.txt', '.caption')
# Of letters; a text of 75 tokens has a few hundred.
LONGEST_CAPTION = 10_000
# What templates of the A1111 web UI have in place of {}.
_NAME = re.compile(r'\[name\]', re.IGNORECASE)
_FILEWORDS = re.compile(r'\[filewords\]', re.IGNORECASE)


def is_template(text: str) -> bool:
    """Whether a text is a template, and no name of a file of them.

    Args:
        text: Of a config.

    Returns:
        The answer. A text with a place for words is one, unless there is a
        file of that name.
    """
    if '{}' in text:
        return True
    has_place = bool(_NAME.search(text) or _FILEWORDS.search(text))
    return has_place and not os.path.isfile(or_shipped(text))


@dataclass(frozen=True)
class _Line:
    """A template, and where it stands."""

    text: str
    where: str

    def fault(self, wanted: str) -> UserError:
        """What to raise where something else was wanted."""
        return UserError(
            f'{self.where} must have {wanted}, but got {self.text[:80]!r}.'
        )


class Sentences:
    """The sentences about pictures of some words.

    ``{}`` is the placeholder. As in templates of the A1111 web UI,
    ``[name]`` is too, and ``[filewords]`` is the caption of the picture, a
    text file beside it with its name (``1.txt`` for ``1.jpeg``). A caption may
    have ``[name]``, or the placeholders themselves, in it: then
    ``[filewords]`` alone is a template, as in the trainers of kohya.

    Args:
        template: A file with one template per line, or templates; or either by
            backbone.
        words: P placeholders, in the order of the ``{}``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a mapping has no 'default'; if there is no template, or
            one without its P places.
    """

    def __init__(self, template: Templates, words: Sequence[str]) -> None:
        self._words = list(words)
        self._by_backbone = isinstance(template, Mapping)
        if isinstance(template, Mapping):
            if DEFAULT not in template:
                raise UserError(
                    f'`template` must have the key {DEFAULT!r} beside those '
                    f'of backbones, but got {", ".join(map(repr, template))}.'
                )
            named = dict(template)
        else:
            named = {DEFAULT: template}
        self._lines = {
            name: _lines(each, len(self._words))
            for name, each in named.items()
        }

    @property
    def has_captions(self) -> bool:
        """Whether they need the captions of the pictures."""
        return any(
            _FILEWORDS.search(line.text)
            for lines in self._lines.values()
            for line in lines
        )

    def about(self, picture: str) -> Prompts:
        """The sentences about a picture.

        Args:
            picture: Its path.

        Returns:
            By backbone, where the templates are.

        Raises:
            FileNotFoundError: If it needs a caption, and has none.
            ValueError: If its caption is empty or no text, or neither it nor
                the template has the placeholder.
        """
        prompts = {
            name: tuple(self._fill(line, picture) for line in lines)
            for name, lines in self._lines.items()
        }
        return prompts if self._by_backbone else prompts[DEFAULT]

    def _fill(self, line: _Line, picture: str) -> str:
        """A template with the words, and the caption, in it."""
        # the caption last: what is in it is no place for words, but [name]
        parts = _FILEWORDS.split(line.text)
        if '{}' in line.text:
            left = iter(self._words)
            filled = [
                re.sub(r'\{\}', lambda _: next(left), part) for part in parts
            ]
        else:
            filled = [self._name_in(part) for part in parts]
        if len(parts) == 1:
            return filled[0]
        caption, file = _caption_of(picture, line)
        if '{}' not in line.text:
            self._check_names(caption, file, line)
        return self._name_in(caption).join(filled)

    def _check_names(self, caption: str, file: Path, line: _Line) -> None:
        """Refuses a caption that leaves its picture without a word."""
        if len(self._words) == 1 and _NAME.search(line.text + caption):
            return
        text = unicodedata.normalize('NFC', caption)
        for word in self._words:
            if not re.search(word_pattern(word), text, re.IGNORECASE):
                wanted = 'a {} or [name] for the placeholder'
                if len(self._words) > 1:
                    wanted = f'{len(self._words)} {{}} for the placeholders'
                raise line.fault(
                    f'{wanted}, as the caption {str(file)!r} has no [name] '
                    f'either, nor {word!r} itself'
                )

    def _name_in(self, text: str) -> str:
        """A text with the only word in place of each ``[name]``."""
        if len(self._words) > 1:
            return text
        return _NAME.sub(lambda _: self._words[0], text)


def _lines(template: str | Sequence[str], places: int) -> list[_Line]:
    """The templates, from a list or from the lines of a file."""
    texts = [template] if isinstance(template, str) else list(template)
    whose, count = '`template`', False
    if isinstance(template, str) and not is_template(template):
        text = read_text(
            or_shipped(template),
            'a file of templates (`template` of the dataset), lines such as '
            "'a photo of a {}'",
        )
        texts, whose, count = lines_of(text), repr(template), True
    lines = [
        _Line(
            text.strip(),
            f'A template in {whose}{f", line {number}," if count else ""}',
        )
        for number, text in enumerate(texts, 1)
        if text.strip()
    ]
    if not lines:
        raise UserError(f'{whose} holds no template.')
    for line in lines:
        _check(line, places)
    return lines


def _check(line: _Line, places: int) -> None:
    """Refuses a template without its places for words."""
    names = len(_NAME.findall(line.text))
    if places > 1 and names:
        raise line.fault(
            f'{places} {{}}, one for each placeholder, as [name] does not '
            'say which'
        )
    if line.text.count('{}') == (0 if names else places):
        return
    if names:
        raise line.fault('either {} or [name] for the placeholder')
    if '{}' not in line.text and _FILEWORDS.search(line.text):
        return  # the captions may have it
    wanted = 'one {} (or [name]) for the placeholder'
    if places > 1:
        wanted = f'{places} {{}}, one for each placeholder'
    if line.text.startswith('#'):
        wanted += ' (there are no comments among templates)'
    raise line.fault(wanted)


def _caption_of(picture: str, line: _Line) -> tuple[str, Path]:
    """The caption of a picture on one line, and its file."""
    caption = find_caption(picture)
    if caption is None:
        names = [
            repr(Path(picture).with_suffix(end).name)
            for end in CAPTION_SUFFIXES
        ]
        raise MissingFileError(
            f'{line.where} has [filewords], the caption of the picture, so '
            f'{picture!r} needs one beside it, {names[0]} (or {names[1]}), '
            'but there is none. Write it, or use a template without '
            '[filewords].'
        )
    return caption


def find_caption(picture: str) -> tuple[str, Path] | None:
    """Reads the caption beside a picture.

    Args:
        picture: Its path.

    Returns:
        The caption on one line, and its file; None if there is none.

    Raises:
        ValueError: If it is empty, too long, or no text.
    """
    files = [Path(picture).with_suffix(end) for end in CAPTION_SUFFIXES]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        return None
    caption = ' '.join(read_text(file, 'the caption of a picture').split())
    odd = [c for c in caption if unicodedata.category(c) == 'Cc']
    if odd or len(caption) > LONGEST_CAPTION:
        fault = f'the control character {odd[0]!r}' if odd else 'more letters'
        raise FileError(
            f'A caption must be at most {LONGEST_CAPTION} letters of text, '
            f'but {str(file)!r} has {fault}. Write what {picture!r} shows.'
        )
    if not caption:
        raise FileError(
            f'The caption {str(file)!r} is empty. Write what {picture!r} '
            'shows, or do without: with --source, or with templates that '
            'have no [filewords].'
        )
    return caption, file
