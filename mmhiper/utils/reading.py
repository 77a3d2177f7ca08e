"""Reading files that may be damaged, or made to do harm."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmhiper.utils.errors import (
    FileError,
    MissingFileError,
    UserError,
    shortened,
)

# What Python's reader of JSON raises: text too deep for it, too.
JSON_DAMAGE = (ValueError, RecursionError)
_CHUNK = 1 << 20


def check_file(path: str | Path, wanted: str = 'a file') -> Path:
    """Refuses what cannot be read as a file, before it is opened.

    To open a pipe or a device in place of a file would wait for ever.

    Args:
        path: What a user or a file named.
        wanted: What it should be, with its article, for the message.

    Raises:
        FileNotFoundError: If there is nothing of that name.
        ValueError: If it is a folder, a pipe or a device.
    """
    path = Path(path)
    name = shortened(str(path), 500)  # a file may name anything
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(
            f'Wanted {wanted}, but {name} does not exist (current '
            f'folder: {os.getcwd()!r}). Check the path.'
        ) from None
    except (OSError, ValueError) as error:  # too long, a NUL, no permission
        raise FileError(
            f'Wanted {wanted}, but {name} cannot be read: '
            f'{reason_of(error)}. Check the path.'
        ) from None
    if stat.S_ISDIR(mode):
        raise FileError(
            f'Wanted {wanted}, but {name} is a folder. Name a file in it.'
        )
    if not stat.S_ISREG(mode):
        raise FileError(
            f'Wanted {wanted}, but {name} is a pipe or a device. '
            'Name an ordinary file.'
        )
    return path


@contextmanager
def reading(
    path: str | Path,
    verdict: str,
    remedy: str,
    damage: type[Exception] | tuple[type[Exception], ...] = Exception,
) -> Iterator[None]:
    """Tells in one line what a library raises at a damaged file.

    Nothing but the call of the library belongs inside: our own mistakes must
    keep their tracebacks.

    Args:
        verdict: What a damaged one is said to be: 'is not a ...'.
        remedy: What to do about it, a sentence.
        damage: What the library raises at damage. Decoders of binary formats
            raise nearly anything.

    Yields:
        None

    Raises:
        ValueError: In place of these.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except damage as error:
        raise FileError(
            f'{str(path)!r} {verdict}: {reason_of(error)}. {remedy}'
        ) from error
    except BaseException as error:
        # what a library in Rust raises is no Exception
        if type(error).__name__ != 'PanicException':
            raise
        raise FileError(f'{str(path)!r} {verdict}. {remedy}') from error


def reason_of(error: BaseException) -> str:
    """The first line of an error, for a sentence.

    Args:
        error: Any.

    Returns:
        Without a full stop; never empty.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    words = lines[0].strip().rstrip('.')[:200] if lines else ''
    return printable(words) or type(error).__name__


def limit(variable: str, default: float) -> float:
    """A limit on what is read, which the environment may raise.

    Args:
        variable: Of the environment.
        default: Without it.

    Returns:
        Above 0.

    Raises:
        ValueError: If the variable holds no such number.
    """
    text = os.environ.get(variable)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:  # also NaN
        raise UserError(
            f'{variable} must be a number above 0, but is {text!r}.'
        )
    return value


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file of any size.

    Returns:
        In hexadecimal digits.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def printable(value: Any) -> str:
    """What a file says, for a terminal, which obeys control characters.

    Args:
        value: Text or a plain value.

    Returns:
        On one line, all that is not printed as its escape.
    """
    text = str(value)
    if text.isprintable():
        return text
    return ''.join(
        letter if letter.isprintable() else repr(letter)[1:-1]
        for letter in text
    )
