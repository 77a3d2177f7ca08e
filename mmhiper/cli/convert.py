"""Convert an embedding file between formats, or show what it holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmhiper.cli.options import add_modelspec, modelspec_given
from mmhiper.io import TOKEN_FORMATS, read_token_file, write_token_file
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.errors import UserError
from mmhiper.utils.units import plain_size

EXAMPLE = """\
  mmhiper convert cat-toy.pt cat-toy.safetensors
  mmhiper convert cat-toy.safetensors --info"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('file', help='an embedding file of any format')
    parser.add_argument('out', nargs='?', help='the file to write')
    parser.add_argument(
        '--format',
        choices=TOKEN_FORMATS,
        help='of the file to write (diffusers, for .safetensors and .bin)',
    )
    parser.add_argument(
        '--only',
        metavar='PLACEHOLDER',
        help='take this word out of a file with several',
    )
    parser.add_argument(
        '--placeholder',
        metavar='NEW',
        help='call the word this; needed for a file with a bare tensor',
    )
    add_modelspec(parser)
    parser.add_argument(
        '--force', action='store_true', help='replace a file that is there'
    )
    parser.add_argument(
        '--info', action='store_true', help='show what the file holds'
    )


def run(args: argparse.Namespace) -> None:
    """Read, choose and rename, write; show what is in the result."""
    if bool(args.out) == args.info:
        raise UserError(
            'Wanted the file to write, or --info to see what is in '
            f'{args.file!r}, but got {"both" if args.info else "neither"}.'
        )
    tokens = read_token_file(args.file, args.placeholder)
    if args.only:
        tokens = tokens.only(args.only)
    if args.placeholder:
        if len(tokens.placeholders) > 1:
            raise UserError(
                '--placeholder renames one word, but the file has '
                f'{", ".join(tokens.placeholders)}. Choose one with --only.'
            )
        tokens = tokens.renamed({tokens.placeholders[0]: args.placeholder})
    if args.out:
        out = Path(args.out)
        if out.exists() and not args.force:
            raise UserError(
                f'{args.out!r} is already there. Choose another name, or '
                'replace it with --force.'
            )
        check_writable(out.parent)
        write_token_file(out, tokens, args.format, modelspec_given(args))
        # as others will find it
        tokens = read_token_file(out)
        print(f'written   {out} ({plain_size(out.stat().st_size)})')
    print(tokens.describe())
