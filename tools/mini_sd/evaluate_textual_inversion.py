"""Textual Inversion on the mini world: 20 concepts, a word for each.

A concept is an individual that neither the model nor the judge has seen, in
five pictures. Its word is then drawn in every place.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from draw_data import SIZE, views
from fingerprint import hash_run
from mmengine.config import Config
from panels import label, sheet
from PIL import Image

from mmhiper.engine.launch import train
from mmhiper.evaluation.learned import draw_comparison
from mmhiper.models import TextualInversion
from mmhiper.utils.progress import progress_bar

from judge import Judge
from world import draw, sample_individual
from world.captions import PLACE_WORDS

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'textual_inversion' / 'textual_inversion.py'
CONCEPT_SEED = 85  # a namespace: neither the model nor the judge saw it
RIVALS_SEED = 86
CONCEPTS, PICTURES, PER_PROMPT = 20, 5, 2
SPECIES = ('dog', 'cat', 'robot')
WORDS = {'dog': 'dog', 'cat': 'cat', 'robot': 'toy'}
PLACEHOLDER = '<concept>'
PROMPTS = {
    place: f'a photo of a {PLACEHOLDER} {words[0]}'
    for place, words in PLACE_WORDS.items()
}


@dataclass(frozen=True)
class Concept:
    """A word to learn."""

    word: str  # that it starts from
    pictures: list[Image.Image]


def make_concept(index: int, seed: int = CONCEPT_SEED) -> Concept:
    """Draw concept ``index`` in five pictures."""
    species = SPECIES[index % len(SPECIES)]
    rng = np.random.default_rng([seed, index])
    who = sample_individual(rng, species)
    scenes = views(who, PICTURES, 1000 * seed + index)
    return Concept(WORDS[species], [draw(scene, SIZE) for scene in scenes])


def centre(judge: Judge, pictures: list[Image.Image]) -> torch.Tensor:
    """The mean identity feature of pictures, (64,) of length one."""
    _, features = judge.look(pictures)
    return torch.nn.functional.normalize(features.mean(0), dim=0)


def places_named(texts: list[str]) -> list[str | None]:
    """Which place each text names, None for none."""
    found = []
    for text in texts:
        places = [
            place
            for place, words in PLACE_WORDS.items()
            if any(word in text for word in words)
        ]
        found.append(places[0] if places else None)
    return found


def measure_pictures(
    judge: Judge,
    sources: list[Image.Image],
    texts: list[str],
    pictures: list[list[Image.Image]],
) -> dict[str, float]:
    """What the judge says of pictures of one concept, shares in [0, 1].

    ``identity``: the concept is the nearest of 20, of which 19 are others
    that were drawn for the comparison. ``place``: the place is that of the
    text, of the texts that name one.
    """
    centres = torch.stack([centre(judge, sources), *_rivals(judge)])
    said, features = judge.look([each for row in pictures for each in row])
    nearest = (features @ centres.T).argmax(1)
    result = {'identity': float((nearest == 0).float().mean())}
    wanted = [
        place
        for place, row in zip(places_named(texts), pictures, strict=True)
        for _ in row
    ]
    right = [
        got['place'] == place
        for place, got in zip(wanted, said, strict=True)
        if place
    ]
    if right:
        result['place'] = float(np.mean(right))
    return result


@functools.cache
def _rivals(judge: Judge) -> list[torch.Tensor]:
    """Of the other concepts what `centre` gives, which takes seconds."""
    return [
        centre(judge, make_concept(i, RIVALS_SEED).pictures)
        for i in range(CONCEPTS - 1)
    ]


def learn(
    concept: Concept, index: int, vectors: int, args: argparse.Namespace
) -> TextualInversion:
    """Learn one word as a config says, by default ``textual_inversion.py``."""
    folder = args.out_dir / 'concepts' / f'{index:02d}'
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(concept.pictures):
        picture.save(folder / f'{k}.png')
    cfg = Config.fromfile(args.config or CONFIG)
    cfg.experiment_name = f'word{vectors}_{index}'  # runs of one process
    cfg.merge_from_dict(
        {
            'model.sd.pretrained': str(args.pretrained),
            'model.sd.without_cuda': None,
            'model.placeholder_token': PLACEHOLDER,
            'model.initialize_token': concept.word,
            'model.num_vectors_per_token': vectors,
            'model.val_prompts': list(PROMPTS.values()),
            'train_dataloader.dataset.data_root': str(folder.parent),
            'train_dataloader.dataset.concept_dir': folder.name,
            'train_dataloader.dataset.placeholder': PLACEHOLDER,
            'default_hooks.logger': None,
            'train_cfg.max_iters': args.iters or cfg.train_cfg.max_iters,
            'resume': True,  # a stopped evaluation goes on where it was
            **(args.cfg_options or {}),
        }
    )
    if args.rate:
        cfg.optim_wrapper.optimizer.lr = args.rate
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook.type == 'PlainCheckpointHook'
    ]
    # what other weights or settings have learned is not taken for these
    key = hash_run(cfg, args.pretrained)
    name = f'vectors{vectors}-{key}'
    cfg.work_dir = str(args.out_dir / name / f'{index:02d}')
    editor: TextualInversion = train(cfg).model
    return editor.eval()


def score(
    judge: Judge, concepts: list[Concept], drawn: list[list[Image.Image]]
) -> dict[str, float]:
    """Identity among all concepts, and places, shares in [0, 1]."""
    centres = torch.stack([centre(judge, c.pictures) for c in concepts])
    kept, places = [], []
    for index, pictures in enumerate(drawn):
        said, features = judge.look(pictures)
        kept.append((features @ centres.T).argmax(1) == index)
        wanted = [place for place in PROMPTS for _ in range(PER_PROMPT)]
        places += [
            got['place'] == place
            for got, place in zip(said, wanted, strict=True)
        ]
    return {
        'identity': float(torch.cat(kept).float().mean()),
        'place': float(np.mean(places)),
    }


def draw_concepts(
    concepts: list[Concept], drawn: list[list[Image.Image]]
) -> Image.Image:
    """One row per concept: two of its pictures, then every place once."""
    panels: list[Image.Image] = []
    for concept, pictures in zip(concepts, drawn, strict=True):
        size = pictures[0].size
        for picture in concept.pictures[:2]:
            panels.append(label(picture.resize(size), 'learned from'))
        for text, picture in zip(
            PROMPTS.values(), pictures[::PER_PROMPT], strict=True
        ):
            panels.append(label(picture, text))
    return sheet(panels, 2 + len(PROMPTS))


def measure_textual_inversion(
    args: argparse.Namespace, judge: Judge
) -> dict[str, dict[str, float]]:
    """Measure words of every asked number of vectors, and the plain words.

    The first ``args.individuals`` of 20 concepts are learned.
    """
    concepts = [make_concept(i) for i in range(CONCEPTS)]
    shown = concepts[: args.individuals]
    report: dict[str, dict[str, float]] = {}
    for vectors in args.vectors:
        learned, plain = [], []
        for index, concept in enumerate(progress_bar(shown, desc='concepts')):
            editor = learn(concept, index, vectors, args)
            pictures = draw_comparison(
                editor, PER_PROMPT, seed=1000 * index, **args.drawing
            )
            learned.append([image for _, row, _ in pictures for image in row])
            plain.append([image for _, _, row in pictures for image in row])
        if not report:
            report['initialiser word'] = score(judge, concepts, plain)
        name = f'vectors{vectors}'
        report[name] = score(judge, concepts, learned)
        picture = draw_concepts(shown, learned)
        picture.save(args.out_dir / f'textual_inversion_{name}.png')
    return report
