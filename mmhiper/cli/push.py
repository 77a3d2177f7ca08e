"""Publish what a run has learned: to a model hub, or to a folder.

Shows what would be sent, and where to; --yes sends it. That is the model card,
the last export, the config and pictures that were drawn, without paths of this
machine and without the photo that was learned from.
"""

from __future__ import annotations

import argparse

from mmhiper.cli.options import add_modelspec, modelspec_given
from mmhiper.publishing import (
    files_to_publish,
    folder_of,
    to_folder,
    to_hub,
)
from mmhiper.utils.units import plain_size

EXAMPLE = """\
  mmhiper push work_dirs/dog me/my-dog
  mmhiper push work_dirs/dog me/my-dog --yes --modelspec license=cc-by-4.0
  mmhiper push work_dirs/dog ./my-dog --yes"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('work_dir', help='the folder of a run')
    parser.add_argument(
        'target',
        metavar='REPO_ID',
        help='OWNER/NAME on the hub; or a folder, ./DIR, /DIR or file:///DIR',
    )
    parser.add_argument(
        '--yes', action='store_true', help='send it, in place of showing it'
    )
    parser.add_argument(
        '--public',
        action='store_true',
        help='let all see a new repository (only you do)',
    )
    parser.add_argument(
        '--revision', help='branch, made if need be (the main one)'
    )
    parser.add_argument(
        '--message', default='What mmhiper learned', help='of the commit'
    )
    parser.add_argument(
        '--source-photo',
        action='store_true',
        help='send pictures that show what was learned from, too',
    )
    add_modelspec(parser)


def run(args: argparse.Namespace) -> None:
    """Choose files; show them, or send them."""
    folder = folder_of(args.target)
    files = files_to_publish(
        args.work_dir, modelspec_given(args), args.source_photo
    )
    for name, content in files.items():
        print(f'{name:32s} {plain_size(len(content)):>10s}')
    seen = 'public' if args.public else 'private'
    where = f'{args.target} on the hub ({seen} if it is new)'
    if folder is not None:
        where = f'the folder {folder}'
    if not args.yes:
        print(f'Nothing was sent. --yes sends it to {where}.')
        return
    if folder is not None:
        to_folder(files, folder, args.work_dir)
    else:
        where = to_hub(
            files, args.target, not args.public, args.revision, args.message
        )
    print(f'Sent to {where}.')
