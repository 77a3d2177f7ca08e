"""Merge embedding files into one, with a placeholder for each word."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmhiper.io import (
    TOKEN_FORMATS,
    TokenFile,
    merge_token_files,
    read_token_file,
    write_token_file,
)
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.errors import UserError
from mmhiper.utils.units import plain_size

EXAMPLE = '''\
  mmhiper merge cat.safetensors toy.pt --out both.bin \\
      --rename "toy.pt:<cat>=<toy>"'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('files', nargs='+', help='of any format')
    parser.add_argument('--out', required=True, help='the file to write')
    parser.add_argument(
        '--rename',
        nargs='+',
        action='extend',
        default=[],
        metavar='[FILE:]OLD=NEW',
        help='call a word something else, in all files or in the one named '
        '(as on this command line)',
    )
    parser.add_argument(
        '--format',
        choices=TOKEN_FORMATS,
        help='of the file to write (diffusers, for .safetensors and .bin)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace a file that is there'
    )


def read_renames(
    renames: Iterable[str], files: Mapping[str, TokenFile]
) -> dict[tuple[str, str], str]:
    """New placeholders by path and old placeholder.

    Placeholders and paths may contain ':' and '=', so what is before them is
    found by what there is.
    """
    everywhere: dict[tuple[str, str], str] = {}
    in_one_file: dict[tuple[str, str], str] = {}
    words = [
        (path, old)
        for path, tokens in files.items()
        for old in tokens.placeholders
    ]
    for text in renames:
        found = False
        for path, old in words:
            for target, start in (
                (everywhere, f'{old}='),
                (in_one_file, f'{path}:{old}='),
            ):
                if text.startswith(start):
                    target[path, old] = text.removeprefix(start).strip()
                    found = True
        if not found:
            known = ', '.join(f'{path}:{old}' for path, old in words)
            raise UserError(
                '--rename must be OLD=NEW or FILE:OLD=NEW with a placeholder '
                f'that there is ({known}), but got {text!r}.'
            )
    return {**everywhere, **in_one_file}


def ask(path: str, old: str, problem: str) -> str:
    """Ask for a placeholder on the terminal, where there is one."""
    problem = f'{old!r} of {path!r}: {problem}'
    if not sys.stdin.isatty():
        raise UserError(
            f'{problem} Give it another placeholder with --rename '
            f'{f"{path}:{old}=NEW"!r}.'
        )
    try:
        return input(f'{problem}\nNew placeholder: ')
    except EOFError:
        raise UserError('No placeholder was given.') from None


def run(args: argparse.Namespace) -> None:
    """Read all files, settle the placeholders, write."""
    out = Path(args.out)
    if out.exists() and not args.force:
        raise UserError(
            f'{args.out!r} is already there. Choose another name, or replace '
            'it with --force.'
        )
    if len(set(args.files)) < len(args.files):
        raise UserError(
            'Wanted each file once, but got one of them again: '
            f'{", ".join(args.files)}.'
        )
    files = {file: read_token_file(file) for file in args.files}
    merged = merge_token_files(files, read_renames(args.rename, files), ask)
    check_writable(out.parent)
    write_token_file(out, merged, args.format)
    print(f'written   {out} ({plain_size(out.stat().st_size)})')
    print(read_token_file(out).describe())
