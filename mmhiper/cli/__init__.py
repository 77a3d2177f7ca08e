# PYTHON_ARGCOMPLETE_OK
"""The command line: ``mmhiper COMMAND ...``, also ``python -m mmhiper``.

One module per command, imported when its command is called. It has a
docstring that says what it does, an ``EXAMPLE``, ``add_arguments(parser)``
and ``run(args)``. The scripts in ``tools/`` call the same commands.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from mmhiper.interruption import STOP, watch_launcher
from mmhiper.threads import bound_spin
from mmhiper.version import __version__

COMMANDS = {
    'edit': 'personalise photos and edit them by texts, in one go',
    'train': 'run the training that a config describes',
    'infer': 'draw pictures from texts with a trained editor',
    'test': 'report whether pictures were learned and texts are followed',
    'bench': 'edit a bench by several methods, and compare them',
    'merge': 'merge embedding files into one',
    'convert': 'convert an embedding file between formats',
    'push': 'publish what a run has learned, on a hub or in a folder',
    'info': 'say what a checkpoint, an embedding or a picture holds',
    'web': 'open a page in the browser to personalise, edit and draw on',
    'doctor': 'examine this machine, and say what to do about problems',
}
_EXIT_CODES = (
    'Exit codes: 0 fine, 1 a mistake or a failure, 2 a wrong command line, '
    '130, 143 or 129 stopped by Ctrl-C, SIGTERM or the end of the terminal.'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Its name and its options, by default those of the process.

    Returns:
        The exit code, 0 if all is fine.

    Raises:
        SystemExit: With code 1 after a user's mistake, 2 if the command line
            is wrong, 128 and its number after a signal; 0 after ``--help``.
    """
    if '_ARGCOMPLETE' in os.environ:  # the shell asks, at a TAB
        return _complete()
    bound_spin()
    with STOP.handled():
        # until there is something to lose: imports take seconds
        STOP.importing = True
        watch_launcher()
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    """See :func:`main`."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] not in COMMANDS:
        _front_parser().parse_args(words)  # helps, or says what is wrong
    # after the front: it takes torch along
    from mmhiper.cli.errors import user_errors

    with user_errors('--debug' in words):
        command = importlib.import_module(f'mmhiper.cli.{words[0]}')
        args = _parser_of(words[0], command).parse_args(words[1:])
        STOP.importing = False
        return command.run(args) or 0


def _complete() -> int:
    """Answers the shell, where argcomplete is installed."""
    try:
        import argcomplete
    except ImportError:
        return 1
    words = os.environ.get('COMP_LINE', '').split()
    argcomplete.autocomplete(_front_parser(words[1] if words[1:] else ''))
    return 1  # it has not been asked at all


def _front_parser(whole: str = '') -> argparse.ArgumentParser:
    """The parser of ``mmhiper``, which knows the commands by name."""
    parser = argparse.ArgumentParser(
        'mmhiper',
        description='Personalise a picture, then edit it by text.',
        epilog='"mmhiper COMMAND --help" shows the options of a command and '
        f'an example. {_EXIT_CODES} TAB completes commands and options where '
        'argcomplete is installed: eval '
        '"$(register-python-argcomplete mmhiper)".',
    )
    parser.add_argument(
        '--version', action='version', version=f'mmhiper {__version__}'
    )
    commands = parser.add_subparsers(
        title='commands', metavar='COMMAND', required=True
    )
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary)
        if name == whole:
            _add_options(sub, importlib.import_module(f'{__name__}.{name}'))
    return parser


def _parser_of(name: str, command: Any) -> argparse.ArgumentParser:
    """The parser of a command."""
    parser = argparse.ArgumentParser(
        f'mmhiper {name}',
        description=command.__doc__,
        epilog=f'example:\n{command.EXAMPLE}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser, command)
    return parser


def _add_options(parser: argparse.ArgumentParser, command: Any) -> None:
    """Describes the options of a command, and that of all."""
    command.add_arguments(parser)
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show the traceback of an error in place of one line',
    )
