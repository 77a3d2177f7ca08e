"""Open a page in the browser to personalise, edit and draw on."""

from __future__ import annotations

import argparse
from contextlib import suppress
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
    try:
        needs = metadata.requires('gradio') or []
    except metadata.PackageNotFoundError:
        raise UserError(
            f'"mmhiper web" needs Gradio, which is not installed: {_REMEDY}.'
        ) from None
    with suppress(metadata.PackageNotFoundError):  # a checkout on the path
        needs += [
            line
            for line in metadata.requires('mmhiper') or []
            if line.endswith('extra == "web"')
        ]
    for need in map(Requirement, needs):
        if need.marker and not need.marker.evaluate({'extra': 'web'}):
            continue
        try:
            found = metadata.version(need.name)
            here, fits = f'{found} is', need.specifier.contains(found, True)
        except metadata.PackageNotFoundError:
            here, fits = 'it is not', False
        if not fits:
            raise UserError(
                f'"mmhiper web" needs {need.name}{need.specifier}, but '
                f'{here} installed: {_REMEDY}.'
            )
