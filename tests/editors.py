"""Every editor, tiny, with what a test must know to treat all alike."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from runs import DOG, REPO, draw_image

CONFIGS = REPO / 'configs'
TEXTS = dict(source_text='a dog', target_text='a cat')


@dataclass(frozen=True)
class Sample:
    """An editor and how it is trained.

    Attributes:
        options (dict): Of its constructor, besides the backbone.
        learned (tuple[str, ...]): First parts of the names in its state dict.
        config (Path, optional): A run that trains it; None if it has nothing
            to learn and a picture is inverted instead.
        prompt (str): A text that what was learned has a part in.
        inverts (bool): Whether it holds one picture, of which a prompt has one
            edit, whatever the seed.
        negative (bool): Whether a negative prompt has a place.
        clip (bool): Whether it needs an image encoder.
        values (dict): Of the run's config.
    """

    options: dict[str, Any]
    learned: tuple[str, ...] = ('embedding',)
    config: Path | None = DOG
    prompt: str = 'a cat'
    inverts: bool = False
    negative: bool = True
    clip: bool = False
    values: dict[str, Any] = field(default_factory=dict)


CURRICULUM = ('embedding', 'progress', 'reached', 'start')
SHORT = dict(num_steps=3, num_inner_steps=2)


def _word(**options: Any) -> Sample:
    """An editor that learns a word."""
    return Sample(
        dict(placeholder_token='<toy>', initialize_token='x', **options),
        config=CONFIGS / 'textual_inversion' / 'textual_inversion.py',
        prompt='a <toy>',
        values={
            'train_dataloader.dataset.concept_dir': '.',
            'train_dataloader.dataset.placeholder': '<toy>',
            'train_dataloader.dataset.template': ['a {}', 'my {}'],
        },
    )


# By type; the last one is that of docs/en/add_an_editor.md, an outside one.
EDITORS = {
    'DDIMInversion': Sample(
        dict(**TEXTS, num_steps=3), ('start',), None, inverts=True
    ),
    'DirectInversion': Sample(
        dict(**TEXTS, num_steps=3), ('path', 'start'), None, inverts=True
    ),
    'HiPer': Sample(dict(**TEXTS, n_hiper=3)),
    'NegativePromptInversion': Sample(
        dict(**TEXTS, num_steps=3),
        ('start',),
        None,
        inverts=True,
        negative=False,
    ),
    'NullTextInversion': Sample(
        dict(**TEXTS, num_steps=2, num_inner_steps=2),  # 4 iterations
        CURRICULUM,
        CONFIGS / 'style_diffusion' / 'dog.py',
        inverts=True,
        negative=False,
    ),
    'StyleDiffusion': Sample(
        dict(**TEXTS, **SHORT),
        CURRICULUM,
        CONFIGS / 'style_diffusion' / 'dog.py',
        inverts=True,
        clip=True,
    ),
    'TextualInversion': _word(),
    'ExtendedTextualInversion': _word(),
    'ProSpect': _word(num_stages=3),
    'TextInterpolation': Sample(dict(**TEXTS)),
}


def model_of(kind: str, backbone: Path, **options: Any) -> dict[str, Any]:
    """The config of an editor on a tiny model."""
    sd = dict(type='mmhiper.StableDiffusion', pretrained=str(backbone))
    sd.update(options.pop('sd', {}))
    model = dict(type=f'mmhiper.{kind}', sd=sd, **EDITORS[kind].options)
    return {**model, **options}


def run_of(
    kind: str, backbone: Path, folder: Path, iterations: int = 4
) -> Config:
    """A run of an editor, with a checkpoint at every second iteration."""
    sample = EDITORS[kind]
    image = folder / 'image.png'
    if not image.exists():
        draw_image(image)
    cfg = Config.fromfile(sample.config)
    cfg.model = model_of(kind, backbone)
    data = 'train_dataloader.dataset'
    if cfg.train_dataloader.dataset.type == 'SourceImageDataset':
        cfg.merge_from_dict({f'{data}.img': str(image)})
    else:
        cfg.merge_from_dict({f'{data}.data_root': str(folder)})
    cfg.merge_from_dict(
        {
            # mmengine lets runs of the same name and second share their state
            'experiment_name': uuid.uuid4().hex,
            'work_dir': str(folder / 'run'),
            'train_cfg.max_iters': iterations,
            'default_hooks.checkpoint.interval': 2,
            **sample.values,
        }
    )
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook.type != 'LossCurveHook'
    ]
    return cfg
