"""Texts that somebody wrote, and names of files that are made of them."""

from __future__ import annotations

import re
import unicodedata

from mmhiper.utils.errors import UserError

# Windows takes these for devices, whatever follows a dot.
_DEVICES = re.compile(
    r'(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)', re.I
)
# Of bytes: file systems end at 255, and a suffix or two is added.
_LONGEST = 120
# What goes on with a word: letters and digits, but not those of scripts that
# put no spaces between words.
_JOINED = '[^\\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]'


def safe_name(text: str) -> str:
    """Makes a text the name of a file or folder, on every system.

    The name has no separators, is neither hidden nor '.' nor '..', no device
    of Windows and not too long, so what is written under it stays in its
    folder. A text that is such a name stays as it is.

    Args:
        text: Any, such as a word from a table.

    Returns:
        The name, at least one character.
    """
    text = unicodedata.normalize('NFC', text)
    text = ''.join(
        letter if letter.isprintable() and letter not in '<>:"/\\|?*' else '_'
        for letter in text
    )
    # no lone surrogates are left: they are not printable
    text = text.encode()[:_LONGEST].decode(errors='ignore')
    text = text.strip().lstrip('.').rstrip('. ')
    text = text.strip()
    if not text or _DEVICES.match(text):
        text = f'_{text}'
    return text


def same_place(name: str) -> str:
    """What is equal for names that some file systems take for one.

    Args:
        name: Of a file or folder.

    Returns:
        Without regard to capitals.
    """
    return unicodedata.normalize('NFC', name).casefold()


def check_unicode(name: str, text: str) -> None:
    """Refuses halves of characters, which no tokenizer and no file takes.

    Args:
        name: Of the argument, for the message.
        text: Any.

    Raises:
        ValueError: If there is a lone surrogate, as of a command line that
            was written in another encoding than the terminal's.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f'`{name}` must be text, but {text[:80]!r} has half a character '
            f'at position {error.start}. Was it written in another encoding '
            'than UTF-8?'
        ) from None


def same_word(word: str) -> str:
    """What two words have in common that are one to a text encoder.

    Args:
        word: A placeholder.

    Returns:
        The same for words that differ in capitals alone, or in how their
        accents are stored.
    """
    return unicodedata.normalize('NFC', word).lower()


def word_pattern(word: str) -> str:
    """The regular expression that finds a placeholder as a whole word.

    Args:
        word: A placeholder; where it begins, or ends, with a letter or digit,
            none may stand beside it.

    Returns:
        For texts in NFC, whatever their capitals.
    """
    word = unicodedata.normalize('NFC', word)
    before = f'(?<!{_JOINED})' if word[:1].isalnum() else ''
    behind = f'(?!{_JOINED})' if word[-1:].isalnum() else ''
    return f'{before}{re.escape(word)}{behind}'
