"""Values of a config on the command line."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

from mmengine.config import DictAction

from mmhiper.models.guidance import NONE, Guidance


def add_guidance(parser: Any) -> None:
    """Describes what pictures are guided by.

    Args:
        parser (argparse.ArgumentParser): Or a group of options.
    """
    parser.add_argument(
        '--guidance-scale',
        type=float,
        metavar='S',
        help='how closely pictures follow their texts; 1 is no guidance (the '
        "backbone's own: 7.5 for Stable Diffusion, 5 for XL)",
    )
    parser.add_argument(
        '--guidance-rescale',
        type=float,
        metavar='SHARE',
        help='in [0, 1]; undoes the contrast that much guidance adds, 0.7 '
        'where it is used (0)',
    )
    parser.add_argument(
        '--guidance-interval',
        type=float,
        nargs=2,
        metavar=('LOW', 'HIGH'),
        help='noise levels between which guidance acts, such as 0.28 5.42 '
        '(all; they go from 0.03 to 14.6)',
    )


def guidance_given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_guidance` that were given.

    Args:
        args (argparse.Namespace): All options.

    Returns:
        dict[str, Any]: Options of an editor's ``infer``.

    Raises:
        ValueError: If one is out of its range, before anything is trained or
            drawn.
    """
    scale, interval = args.guidance_scale, args.guidance_interval
    share = args.guidance_rescale
    Guidance(NONE if scale is None else scale, share or 0.0, interval)
    given = dict(
        guidance_scale=scale,
        guidance_rescale=share,
        guidance_interval=interval,
    )
    return {name: each for name, each in given.items() if each is not None}


class ConfigOptions(DictAction):
    """``KEY=VALUE ...`` as mmengine reads it, with the blanks of texts.

    mmengine removes every blank from a value, so that ``model.source_text="a
    standing dog"`` would train on ``astandingdog``, and say nothing.
    """

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """Reads a value.

        Args:
            val (str): A number, a text, or a list or tuple of them in
                brackets, texts with blanks in it in quotes.

        Returns:
            Any: What it says.

        Raises:
            argparse.ArgumentTypeError: If a list has a text with blanks that
                is not in quotes.
        """
        if ' ' not in val.strip():
            return DictAction._parse_iterable(val.strip())
        try:
            value = ast.literal_eval(val.strip())
        except (ValueError, SyntaxError):
            pass
        else:  # as mmengine has it: a tuple is in brackets
            bare = isinstance(value, tuple) and not val.strip().startswith('(')
            return list(value) if bare else value
        if val.strip()[0] not in '[(':
            return val
        tight = re.sub(r'\s*([,\[\]()])\s*', r'\1', val)
        if ' ' in tight:
            raise argparse.ArgumentTypeError(
                f'texts with blanks in a list must be in quotes: {val}'
            )
        return DictAction._parse_iterable(tight)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Adds values to the namespace.

        Args:
            parser (argparse.ArgumentParser): Ends with what is wrong.
            namespace (argparse.Namespace): Changed in place.
            values (Sequence[str]): ``KEY=VALUE`` each.
            option_string (str, optional): Such as ``--cfg-options``.
        """
        for each in values:
            if '=' not in each:
                parser.error(f'{option_string}: wanted KEY=VALUE, got {each}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (argparse.ArgumentTypeError, AssertionError) as error:
            parser.error(f'{option_string}: {error}')
