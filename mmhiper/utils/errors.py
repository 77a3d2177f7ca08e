"""What a user can mend: one family of errors."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake, said in one line: wanted, got, what to do.

    The command line prints the message and ends with code 1; every other
    error is a bug, and keeps its traceback.
    """


def shortened(text: str, ends: int = 40) -> str:
    """A text for a message, of a long one both ends.

    Args:
        text: Any text.
        ends: Letters at each end.

    Returns:
        In quotes.
    """
    if len(text) > 2 * ends + 5:
        text = f'{text[:ends]} ... {text[-ends:]}'
    return repr(text)


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that a user named is not there."""


class FileError(UserError):
    """A file is there, but not what was wanted: damaged, or of another kind.

    The message names the file, what was wanted in it and what to do.
    """
