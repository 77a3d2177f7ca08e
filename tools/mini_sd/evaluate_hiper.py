"""HiPer on the mini world: 20 unseen individuals, 4 edits of each.

All sources are learned in one run, as K rows of one embedding: the loss is a
sum over pictures and Adam works on each number by itself, so every row is
what a run of its own would have given, at a fraction of the time.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fingerprint import hash_run
from mmengine.config import Config
from panels import label, psnr, sheet
from PIL import Image

from mmhiper.engine.launch import train
from mmhiper.models import HiPer
from mmhiper.utils.pixels import to_pil

from judge import Judge, to_pixels
from world import (
    PLACES,
    POSES,
    Scene,
    draw,
    draw_with_mask,
    sample_individual,
)
from world.captions import ACCESSORY_WORDS, PLACE_WORDS

CONFIG = Path(__file__).parents[2] / 'configs' / 'hiper' / 'dog.py'
# The others draw, or tell.
LEARNING_HOOKS = ('PlainCheckpointHook', 'AverageHook', 'PlateauHook')
INDIVIDUAL_SEED = 84  # a namespace: neither the model nor the judge saw it


@dataclass(frozen=True)
class Case:
    """One source picture and its four edits."""

    scene: Scene
    source: Image.Image
    source_text: str
    more_texts: tuple[str, ...]  # that are true of the source as well
    targets: tuple[str, ...]
    asked: tuple[dict[str, str], ...]  # what the judge should answer to each


def make_case(index: int, name_place: bool = False) -> Case:
    """Draw source ``index`` and choose its edits: two poses, place, hat.

    With ``name_place`` all texts say where the animal is: what a source text
    leaves out is for the learned part to carry, and an edit to contradict.
    """
    rng = np.random.default_rng([INDIVIDUAL_SEED, index])
    species = ('dog', 'cat')[index % 2]
    who = sample_individual(rng, species)
    pose = POSES[index // 2 % len(POSES)]
    place = str(rng.choice(PLACES))
    scene = Scene(
        who, pose, place, flip=bool(rng.random() < 0.5), scale=0.95,
        layout=int(rng.integers(2**31)),
    )  # fmt: skip
    poses = rng.permutation([p for p in POSES if p != pose])[:2]
    other = str(rng.choice([p for p in PLACES if p != place]))
    accessory = str(rng.choice(list(ACCESSORY_WORDS)))
    words = ACCESSORY_WORDS[accessory][0].format('red')
    here = f' {PLACE_WORDS[place][0]}' if name_place else ''
    edits = [
        (f'a {new} {species}{here}', {'pose': str(new)}) for new in poses
    ] + [
        (f'a {pose} {species} {PLACE_WORDS[other][0]}',
         {'pose': pose, 'place': other}),
        (f'a {pose} {species}{here} {words}',
         {'pose': pose, accessory: 'yes'}),
    ]  # fmt: skip
    return Case(
        scene=scene,
        source=draw(scene, 512),
        source_text=f'a {pose} {species}{here}',
        more_texts=(
            f'a {pose} {species} {PLACE_WORDS[place][0]}',
            f'a {species} {pose} {PLACE_WORDS[place][0]}',
        ),
        targets=tuple(text for text, _ in edits),
        asked=tuple({'species': species, **wanted} for _, wanted in edits),
    )


def learn(
    cases: list[Case], n_hiper: int | None, args: argparse.Namespace
) -> HiPer:
    """Learn all sources at once, see :func:`run_config`."""
    editor: HiPer = train(run_config(cases, n_hiper, args)).model
    return editor.eval()


def run_config(
    cases: list[Case], n_hiper: int | None, args: argparse.Namespace
) -> Config:
    """Write the sources, and make the config of one dog that of all.

    Where it has more than one source text, each source has some more.
    """
    folder = args.out_dir / 'sources'
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f'{i:02d}.png') for i in range(len(cases))]
    masks = [path.replace('.png', '_mask.png') for path in paths]
    for path, mask, case in zip(paths, masks, cases, strict=True):
        case.source.save(path)
        draw_with_mask(case.scene, 512)[1].save(mask)
    cfg = Config.fromfile(args.config or CONFIG)
    n_hiper = n_hiper or cfg.model.n_hiper
    cfg.experiment_name = f'hiper_n{n_hiper}'  # runs of one process
    several = cfg.model.get('more_source_texts')
    cfg.merge_from_dict(
        {
            'model.sd.pretrained': str(args.pretrained),
            'model.sd.without_cuda': None,
            'model.source_text': [case.source_text for case in cases],
            'model.target_text': None,
            'model.n_hiper': n_hiper,
            'model.more_source_texts': [
                list(case.more_texts) for case in cases
            ]
            if several
            else None,
            'train_dataloader.dataset.img': paths,
            'train_dataloader.dataset.mask': masks if args.mask else None,
            'train_dataloader.batch_size': len(cases),
            'train_cfg.max_iters': args.iters or cfg.train_cfg.max_iters,
            'resume': True,  # a stopped evaluation goes on where it was
            **(args.cfg_options or {}),
        }
    )
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook['type'] in LEARNING_HOOKS
    ]
    # what other weights or settings have learned is not taken for these
    key = hash_run(cfg, args.pretrained)
    cfg.work_dir = str(args.out_dir / f'n{cfg.model.n_hiper}-{key}')
    return cfg


@torch.inference_mode()
def edit(
    editor: HiPer,
    cases: list[Case],
    strength: float | list[float] | None,
    **options: Any,
) -> list[Image.Image]:
    """Draw every edit; a strength of None draws the plain target texts."""
    images: list[Image.Image] = []
    for index, case in enumerate(cases):
        if strength is not None:
            images += edit_one(
                editor, index, case, strength=strength, **options
            )
            continue
        texts = editor.encode_content(list(case.targets))
        images += [
            to_pil(picture)
            for picture in editor.sample(texts, seed=1000 * index, **options)
        ]
    return images


def edit_one(
    editor: HiPer, index: int, case: Case, **options: Any
) -> list[Image.Image]:
    """Draw the edits of one source, with options of ``infer``."""
    images: list[Image.Image] = editor.infer(
        list(case.targets), image=index, seed=1000 * index,
        show_progress=False, **options,
    )['samples']  # fmt: skip
    return images


@torch.inference_mode()
def reconstruct(
    editor: HiPer, cases: list[Case], **options: Any
) -> tuple[list[Image.Image], float]:
    """Draw [source text, hiper] from noise; its mean PSNR in dB."""
    images, qualities = zip(
        *(
            reconstruct_one(editor, i, case, **options)
            for i, case in enumerate(cases)
        ),
        strict=True,
    )
    return list(images), float(np.mean(qualities))


def reconstruct_one(
    editor: HiPer, index: int, case: Case, **options: Any
) -> tuple[Image.Image, float]:
    """Draw [source text, hiper] of one source from noise; its PSNR in dB."""
    (image,) = editor.infer(
        case.source_text, image=index, strength=1.0, seed=1,
        show_progress=False, **options,
    )['samples']  # fmt: skip
    return image, float(psnr(to_pixels([image]), to_pixels([case.source])))


def score(
    judge: Judge,
    cases: list[Case],
    images: list[Image.Image],
    index: int | None = None,
) -> dict[str, float]:
    """Edit success and identity, shares in [0, 1].

    An edit succeeds when the judge sees everything that its text names. The
    identity is kept when the own source is the nearest of all sources. The
    pictures are edits of all sources, or of source ``index`` alone.
    """
    shown = range(len(cases)) if index is None else [index]
    asked = [wanted for i in shown for wanted in cases[i].asked]
    said, features = judge.look(images)
    _, sources = judge.look([case.source for case in cases])
    nearest = (features @ sources.T).argmax(1)
    own = torch.tensor(shown).repeat_interleave(len(cases[0].asked))
    success = [
        all(got[name] == value for name, value in want.items())
        for want, got in zip(asked, said, strict=True)
    ]
    kept = nearest == own
    return {
        'edit_success': float(np.mean(success)),
        'identity': float(kept.float().mean()),
        'both': float((kept & torch.tensor(success)).float().mean()),
    }


def draw_cases(
    cases: list[Case], rebuilt: list[Image.Image], edits: list[Image.Image]
) -> Image.Image:
    """One row per case: source, reconstruction, the four edits."""
    panels: list[Image.Image] = []
    per = len(cases[0].targets)
    for i, case in enumerate(cases):
        size = rebuilt[i].size
        panels.append(label(case.source.resize(size), case.source_text))
        panels.append(label(rebuilt[i], 'reconstruction'))
        row = edits[i * per : (i + 1) * per]
        panels += [
            label(image, text)
            for image, text in zip(row, case.targets, strict=True)
        ]
    return sheet(panels, per + 2)


def measure_hiper(
    args: argparse.Namespace, judge: Judge
) -> dict[str, dict[str, float]]:
    """Measure HiPer for every asked N and strength, and the plain texts."""
    cases = [make_case(i, args.name_place) for i in range(args.individuals)]
    report: dict[str, dict[str, float]] = {}
    for count in args.n_hiper:
        editor = learn(cases, count, args)
        count = editor.n_hiper
        rebuilt, quality = reconstruct(editor, cases, **args.drawing)
        if not report:
            plain = edit(editor, cases, None, **args.drawing)
            report['plain target text'] = score(judge, cases, plain)
        for strength in args.strength or [editor.strength]:
            images = edit(editor, cases, strength, **args.drawing)
            several = isinstance(strength, list)
            words = '-'.join(map(str, strength)) if several else strength
            name = f'n{count}_strength{words}'
            report[name] = score(judge, cases, images)
            report[name]['reconstruction_psnr_db'] = quality
            picture = draw_cases(cases, rebuilt, images)
            picture.save(args.out_dir / f'hiper_{name}.png')
    return report
