"""Open a page in the browser to personalise, edit and draw on."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mmhiper.utils.errors import UserError

EXAMPLE = """\
  mmhiper web --work-dirs work_dirs --open"""
_REMEDY = 'pip install "mmhiper[web]", in an environment of its own'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument(
        '--work-dirs',
        type=Path,
        default=Path('work_dirs'),
        help='folder of the runs that the page shows and makes (%(default)s)',
    )
    parser.add_argument(
        '--port', type=int, help='on 127.0.0.1 (the first free one from 7860)'
    )
    parser.add_argument(
        '--pretrained', help="backbone: hub id, folder, file or 'mini-sd'"
    )
    parser.add_argument(
        '--iters', type=int, default=1200, help='set at first (%(default)s)'
    )
    parser.add_argument(
        '--steps',
        type=int,
        default=50,
        help='of a picture, set at first (%(default)s)',
    )
    parser.add_argument(
        '--open', action='store_true', help='open it in the browser, too'
    )


def run(args: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    check_gradio()  # in a line of words, before it is imported
    from mmhiper.web.serve import serve

    serve(
        args.work_dirs,
        args.port,
        args.pretrained,
        args.open,
        iterations=args.iters,
        steps=args.steps,
    )


def check_gradio() -> None:
    """Refuses to start without Gradio, or where its bounds clash.

    Raises:
        ValueError: If it is missing, of another version than the extra ``web``
            has, or needs another version of a package than is installed.
    """
    for owner, extra in (('mmhiper', 'web'), ('gradio', '')):
        for line in metadata.requires(owner) or []:
            need = Requirement(line)
            for_extra = 'extra ==' in line
            if for_extra != bool(extra) or (
                need.marker and not need.marker.evaluate({'extra': extra})
            ):
                continue
            try:
                found = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                raise UserError(
                    f'"mmhiper web" needs {need.name}, which is not '
                    f'installed: {_REMEDY}.'
                ) from None
            if not need.specifier.contains(found, prereleases=True):
                raise UserError(
                    f'"mmhiper web" needs {need.name}{need.specifier}, but '
                    f'{found} is installed: {_REMEDY}.'
                )
