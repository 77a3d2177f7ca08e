"""Edit the cases of a bench by several methods, and measure them all.

A bench is a folder as it is published: PIE-Bench, PIE-Bench++, TEdBench or
DreamBench. What is done is skipped, so the same command goes on after a stop;
a case that fails is listed, and does not stop the rest. Start it by
`python -m torch.distributed.run --nproc_per_node N -m mmhiper bench ...`, or
in a job array of Slurm, to share the cases out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmhiper.bench import (
    METHODS,
    Bench,
    Drawing,
    MetricChoice,
    method_config,
)
from mmhiper.bench.methods import PLAIN
from mmhiper.bench.metrics import read_metrics
from mmhiper.bench.report import PAGE, TABLE
from mmhiper.cli.config_values import merge_options
from mmhiper.cli.options import (
    ConfigOptions,
    add_guidance,
    guidance_given,
    show_options,
)
from mmhiper.engine.share import Share
from mmhiper.evaluation.benches import BenchCase, read_bench
from mmhiper.evaluation.clip_features import HUB_CLIP
from mmhiper.evaluation.dino import HUB_DINO
from mmhiper.models.loading import backbone_folder
from mmhiper.utils.errors import UserError

EXAMPLE = """\
  mmhiper bench PIE_Bench --methods direct,ddim_p2p --out-dir out \\
      --dino facebook/dino-vitb8 --clip openai/clip-vit-large-patch14"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the options."""
    parser.add_argument('bench', help='the folder of a bench')
    parser.add_argument(
        '--methods',
        default=','.join(METHODS),
        metavar='NAME,NAME',
        help='(all: %(default)s)',
    )
    parser.add_argument(
        '--out-dir', help='folder of the results (work_dirs/bench_<folder>)'
    )
    parser.add_argument(
        '--num-cases',
        type=int,
        metavar='N',
        help='so many, spread evenly over the bench (all)',
    )
    parser.add_argument(
        '--share',
        metavar='I/N',
        help='only this part of the work, such as 0/4 (that of this task of '
        'a job array of Slurm)',
    )
    models = parser.add_argument_group('the editors')
    models.add_argument(
        '--pretrained',
        help="frozen model of all methods: hub id, folder, file or 'mini-sd' "
        '(that of the config of the first method)',
    )
    models.add_argument(
        '--config',
        nargs='+',
        default=[],
        metavar='METHOD=CONFIG',
        help="configs in place of the project's",
    )
    models.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='[METHOD.]KEY=VALUE',
        help='values of the configs, of all or of one method, for instance '
        'hiper.train_cfg.max_iters=800',
    )
    models.add_argument(
        '--images-per-step',
        type=int,
        default=8,
        metavar='N',
        help='how many cases HiPer learns at the same time (%(default)s)',
    )
    models.add_argument(
        '--steps',
        type=int,
        default=50,
        help='of drawing from noise (%(default)s); editors that invert a '
        'picture have model.num_steps',
    )
    models.add_argument(
        '--seed', type=int, default=1, help='of that noise (%(default)s)'
    )
    add_guidance(models)
    metrics = parser.add_argument_group('the metrics')
    metrics.add_argument(
        '--clip',
        metavar='NAME',
        help=f"hub id or folder, such as {HUB_CLIP} (the backbone's own)",
    )
    metrics.add_argument(
        '--lpips',
        metavar='FOLDER',
        help='with AlexNet, VGG-16 or SqueezeNet 1.1 of torchvision (none)',
    )
    metrics.add_argument(
        '--dino',
        metavar='NAME',
        help=f'hub id or folder, such as {HUB_DINO} (none)',
    )
    metrics.add_argument(
        '--metrics',
        metavar='CONFIG',
        help='a config with further `bench_metrics`; it is run',
    )
    metrics.add_argument(
        '--among',
        type=int,
        default=20,
        metavar='K',
        help='pictures among which the own subject is to be found '
        '(%(default)s)',
    )


def run(args: argparse.Namespace) -> int:
    """Reads the bench, goes through it, reports; 1 if a case failed."""
    if args.debug:
        show_options(args.cfg_options)
    methods = [each.strip() for each in args.methods.split(',')]
    configs = method_configs(
        methods,
        _pairs(args.config),
        args.cfg_options or {},
        getattr(args, 'cfg_options_texts', None) or {},
        args.pretrained,
    )
    name = Path(args.bench).resolve().name
    out_dir = Path(args.out_dir or Path('work_dirs', f'bench_{name}'))
    cases = read_bench(args.bench, out_dir / 'pictures')
    bench = Bench(
        chosen(cases, args.num_cases),
        configs,
        out_dir,
        Drawing(args.steps, args.seed, guidance_given(args)),
        MetricChoice(
            args.clip, args.lpips, args.dino, read_metrics(args.metrics)
        ),
        args.among,
        args.images_per_step,
    )
    failed = bench.run(Share.of(args.share or share_of_array(os.environ)))
    for case, why in failed.items():
        print(f'failed        {case}: {why}')
    print(
        f'Page          {out_dir / PAGE}\n'
        f'Tables        {out_dir / TABLE}\n'
        f'Failed        {len(failed)} of '
        f'{len(bench.cases) * len(configs)}',
        flush=True,
    )
    return int(bool(failed))


def method_configs(
    methods: Sequence[str],
    paths: Mapping[str, str],
    options: Mapping[str, Any],
    texts: Mapping[str, str],
    pretrained: str | None = None,
) -> dict[str, Config]:
    """The configs of some methods, on one frozen model.

    Args:
        methods: Names of ``METHODS``.
        paths: Configs in place of the project's, by method.
        options: Values by dotted names, for all methods; behind the name of a
            method and a dot for that one.
        texts: The same as they were written, see :func:`merge_options`.
        pretrained: The frozen model; by default that of the first method.

    Returns:
        By method.

    Raises:
        ValueError: If there is no such method, or none; if one is named
            twice; if a value has no effect.
    """
    if len({*methods}) < len(methods) or not all(methods):
        raise UserError(
            f'--methods must be names of {", ".join(METHODS)}, each once, but '
            f'got {",".join(methods)!r}.'
        )
    for name in {*paths, *(key.partition('.')[0] for key in options)}:
        if name in METHODS and name not in methods:
            raise UserError(
                f'There is an option of {name!r}, but no such method among '
                f'--methods {",".join(methods)}.'
            )
    found: dict[str, Config] = {}
    for name in methods:
        cfg = method_config(name, paths.get(name))
        if found:
            cfg.model.sd = next(iter(found.values())).model.sd
        if pretrained is not None:
            cfg.model.sd.update(pretrained=pretrained, without_cuda=None)
            folder = backbone_folder(pretrained)
            if folder is not None and (folder / 'image_encoder').is_dir():
                cfg.model.pop('image_encoder', None)
        own = _of_method(name, options)
        words = _of_method(name, texts)
        if name == PLAIN:  # has a model alone
            own = {k: v for k, v in own.items() if k.startswith('model.sd.')}
        merge_options(cfg, own, words)
        found[name] = cfg
    return found


def _of_method(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for all methods, and over them those of one."""
    common = {
        key: value
        for key, value in values.items()
        if key.partition('.')[0] not in METHODS
    }
    own = {
        key.removeprefix(f'{name}.'): value
        for key, value in values.items()
        if key.startswith(f'{name}.')
    }
    return common | own


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """``METHOD=CONFIG`` as a mapping."""
    pairs = [word.partition('=') for word in words]
    for name, sign, path in pairs:
        if name not in METHODS or not sign or not path:
            raise UserError(
                f'--config must be METHOD=CONFIG with a method of '
                f'{", ".join(METHODS)}, but got {name + sign + path!r}.'
            )
    return {name: path for name, _, path in pairs}


def chosen(cases: list[BenchCase], count: int | None) -> list[BenchCase]:
    """Some cases, spread evenly.

    Args:
        cases: All.
        count: How many, None for all.

    Raises:
        ValueError: If there are fewer.
    """
    if count is None:
        return cases
    if not 1 <= count <= len(cases):
        raise UserError(
            f'--num-cases must be in [1, {len(cases)}], the cases of the '
            f'bench, but got {count}.'
        )
    return [cases[n * len(cases) // count] for n in range(count)]


def share_of_array(environment: Mapping[str, str]) -> str | None:
    """The part of the work of a task in a job array of Slurm.

    Args:
        environment: Of the process.

    Returns:
        See :meth:`Share.of`; None outside of an array.
    """
    names = ('ID', 'MIN', 'COUNT')
    words = [environment.get(f'SLURM_ARRAY_TASK_{name}') for name in names]
    if not all(word and word.isdigit() for word in words):
        return None
    number, first, count = (int(str(word)) for word in words)
    step = environment.get('SLURM_ARRAY_TASK_STEP', '1')
    step_size = int(step) if step.isdigit() and int(step) else 1
    return f'{(number - first) // step_size}/{count}'
