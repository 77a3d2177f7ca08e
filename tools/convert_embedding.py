"""Convert an embedding file between formats, or show what it holds.

python tools/convert_embedding.py cat-toy.pt cat-toy.safetensors
python tools/convert_embedding.py cat-toy.safetensors --info
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmhiper.engine.launch import check_writable, user_errors
from mmhiper.io import TOKEN_FORMATS, read_token_file, write_token_file


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Convert an embedding file of Textual Inversion between '
        'formats, or show what it holds.'
    )
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
        '--placeholder', metavar='NEW', help='call the word this'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace a file that is there'
    )
    parser.add_argument(
        '--info', action='store_true', help='show what the file holds'
    )
    return parser.parse_args()


def main() -> None:
    """Read, choose and rename, write; show what is in the result."""
    args = parse_args()
    if bool(args.out) == args.info:
        raise ValueError(
            'Wanted the file to write, or --info to see what is in '
            f'{args.file!r}, but got {"both" if args.info else "neither"}.'
        )
    tokens = read_token_file(args.file)
    if args.only:
        tokens = tokens.only(args.only)
    if args.placeholder:
        if len(tokens.placeholders) > 1:
            raise ValueError(
                '--placeholder renames one word, but the file has '
                f'{", ".join(tokens.placeholders)}. Choose one with --only.'
            )
        tokens = tokens.renamed({tokens.placeholders[0]: args.placeholder})
    if args.out:
        out = Path(args.out)
        if out.exists() and not args.force:
            raise ValueError(
                f'{args.out!r} is already there. Choose another name, or '
                'replace it with --force.'
            )
        check_writable(out.parent)
        write_token_file(out, tokens, args.format)
        # as others will find it
        tokens = read_token_file(out)
        print(f'written   {out}')
    print(tokens.describe())


if __name__ == '__main__':
    with user_errors():
        main()
