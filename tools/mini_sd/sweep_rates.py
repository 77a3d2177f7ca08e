"""Learn words of the mini world at several rates, side by side.

    python tools/mini_sd/sweep_rates.py
    python tools/mini_sd/sweep_rates.py --individuals 4 --iters 600

For each concept a word for every setting is learned in one run. Words learn
as if alone, and a step draws the same picture, sentence, noise and timestep
for all of them: so settings differ by nothing else. A setting is a rate of
AdamW, whether it falls to a tenth, and whether the row's length is held. One
word has the rate 0; its gradients, all at the same place, say how much of a
gradient is signal.

Each concept is a line of ``rates.jsonl`` in a folder of ``--out-dir`` that is
named after the weights and the iterations, so a stopped run goes on where it
was; ``rates.md`` beside it is the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate_textual_inversion import (
    CONFIG,
    PROMPTS,
    Concept,
    make_concept,
    measure_pictures,
)
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement

from mmhiper.models import TextualInversion
from mmhiper.models.loading import BUNDLED, MINI_SD
from mmhiper.registry import MODELS
from mmhiper.utils import register_all_modules
from mmhiper.utils.pictures import to_pil
from mmhiper.utils.progress import progress_bar

from judge import Judge, load_judge

DRAWS = 64  # of the loss on fixed noise
END = 0.1  # of a rate that falls
TEMPLATES = Path(__file__).parents[2] / 'data' / 'mini_sd_templates.txt'


@dataclass(frozen=True)
class Setting:
    """How a word is learned."""

    rate: float
    falls: bool
    held: bool

    def __str__(self) -> str:
        """As it stands in the table."""
        falls = 'falls to a tenth' if self.falls else 'constant'
        return f'| {self.rate:g} | {falls} | {"held" if self.held else ""} |'


STILL = Setting(0.0, falls=False, held=False)


def settings(rates: list[float]) -> list[Setting]:
    """All settings of rates, after the one that learns nothing."""
    both = (False, True)
    return [STILL, *(Setting(*each) for each in product(rates, both, both))]


def build(concept: Concept, words: list[str], folder: Path) -> Any:
    """An editor of a word for each setting."""
    model = dict(Config.fromfile(CONFIG).model)
    model.update(
        sd=dict(type='StableDiffusion', pretrained=str(folder)),
        placeholder_token=words,
        initialize_token=concept.word,
        val_prompts=words,
    )
    return MODELS.build(model)


def batch(
    editor: TextualInversion, picture: Any, words: list[str]
) -> dict[str, Any]:
    """A picture for each word, with the word's sentences."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    sentences = TEMPLATES.read_text().splitlines()
    samples = [
        BaseDataElement(
            metainfo=dict(
                image_index=0,
                prompts=[sentence.format(word) for sentence in sentences],
            )
        )
        for word in words
    ]
    data: dict[str, Any] = editor.data_preprocessor(
        dict(inputs=[pixels] * len(words), data_samples=samples)
    )
    return data


def learn(
    editor: TextualInversion,
    batches: list[dict[str, Any]],
    tried: list[Setting],
    iters: int,
) -> torch.Tensor:
    """Learns all words; returns the gradients of the still one, (I, D)."""
    rows = [editor.embedding.rows_of(word) for word in editor.words.learned]
    optimizer = torch.optim.AdamW(
        [
            dict(params=[row], lr=each.rate)
            for row, each in zip(rows, tried, strict=True)
        ]
    )
    lengths = [row.detach().norm() for row in rows]
    order = np.random.default_rng(0)
    gradients = []
    for i in progress_bar(range(iters), desc='steps'):
        hub = MessageHub.get_current_instance()
        hub.update_info_dict(dict(seed=0, iter=i))
        for group, each in zip(optimizer.param_groups, tried, strict=True):
            left = 1 - (1 - END) * i / max(1, iters - 1)
            group['lr'] = each.rate * (left if each.falls else 1)
        data = batches[order.integers(len(batches))]
        loss = editor(**data, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        gradients.append(rows[0].grad[0].clone())
        optimizer.step()
        for row, each, length in zip(rows, tried, lengths, strict=True):
            if each.held:
                row.data.mul_(length / row.data.norm())
    return torch.stack(gradients)


def signal(gradients: torch.Tensor) -> dict[str, float]:
    """Of draws of one gradient: its size, and the share that is no noise.

    Args:
        gradients (torch.Tensor): I draws at the same place, (I, D).

    Returns:
        dict[str, float]: ``size``: root mean square of a number. ``signal``:
        that of the mean gradient, without what noise adds to it, over it.
    """
    size = gradients.square().mean()
    mean = gradients.mean(0).square() - gradients.var(0) / len(gradients)
    share = (mean.mean().clamp_min(0) / size).sqrt()
    return dict(size=float(size.sqrt()), signal=float(share))


@torch.no_grad()
def look_at(
    editor: TextualInversion,
    concept: Concept,
    word: str,
    judge: Judge,
    seed: int,
) -> dict[str, float]:
    """Length, way, loss on fixed noise, identity and places of a word."""
    row = editor.embedding.rows_of(word)
    moved = row - editor.embedding.initial_of(word)
    each = [batch(editor, picture, [word]) for picture in concept.pictures]
    texts = [text.replace('<concept>', word) for text in PROMPTS.values()]
    pixels = editor.sample(editor.condition(texts), seed=seed)
    drawn = [[to_pil(picture)] for picture in pixels]
    return dict(
        length=float(row.norm()),
        way=float(moved.norm()),
        loss=float(
            editor.fixed_loss(
                torch.cat([data['inputs'] for data in each]),
                [data['data_samples'][0] for data in each],
                DRAWS,
            )
            or 0.0
        ),
        **measure_pictures(judge, concept.pictures, texts, drawn),
    )


def measure(
    index: int, tried: list[Setting], args: argparse.Namespace, judge: Judge
) -> dict[str, Any]:
    """All settings on one concept."""
    concept = make_concept(index)
    words = [f'<{letter}>' for letter in 'abcdefghijklmnopqrstuvwxyz']
    words = words[: len(tried)]
    editor = build(concept, words, args.pretrained)
    batches = [batch(editor, each, words) for each in concept.pictures]
    gradients = learn(editor, batches, tried, args.iters)
    return dict(
        index=index,
        gradient=signal(gradients),
        settings={
            str(each): look_at(editor, concept, word, judge, 1000 * index)
            for each, word in zip(tried, words, strict=True)
        },
    )


def table(rows: list[dict[str, Any]]) -> str:
    """The means over concepts, and what of a gradient is signal."""
    names = ('way', 'length', 'loss', 'identity', 'place')
    lines = [
        '| Rate | over the run | length | way | length at the end | loss | '
        'identity | place |',
        '| --- ' * 8 + '|',
    ]
    for setting in rows[0]['settings']:
        found = [row['settings'][setting] for row in rows]
        means = [
            float(np.mean([each[name] for each in found])) for name in names
        ]
        way, length, loss, identity, place = means
        lines.append(
            f'{setting} {way:.2f} | {length:.2f} | {loss:.4f} | '
            f'{100 * identity:.0f} % | {100 * place:.0f} % |'
        )
    for name in ('size', 'signal'):
        each = [row['gradient'][name] for row in rows]
        lines.append(f'gradient, {name}: {min(each):.3f} to {max(each):.3f}')
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Measure what is not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--pretrained', type=Path, default=BUNDLED[MINI_SD])
    parser.add_argument('--individuals', type=int, default=8)
    parser.add_argument('--iters', type=int, default=1500)
    parser.add_argument(
        '--rates', type=float, nargs='+', default=[5e-4, 2e-3, 5e-3]
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/mini_sd/rates')
    )
    args = parser.parse_args()
    register_all_modules()
    tried = settings(args.rates)
    key = hashlib.sha256(repr((args.iters, tried)).encode())
    for path in sorted(args.pretrained.rglob('*.safetensors')):
        key.update(path.read_bytes())
    folder = args.out_dir / key.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / 'rates.jsonl'
    text = file.read_text() if file.exists() else ''
    rows = [json.loads(line) for line in text.splitlines()]
    judge = load_judge()
    for index in range(len(rows), args.individuals):
        rows.append(measure(index, tried, args, judge))
        with file.open('a') as lines:
            lines.write(json.dumps(rows[-1]) + '\n')
    shown = table(rows[: args.individuals])
    (folder / 'rates.md').write_text(shown)
    print(shown)


if __name__ == '__main__':
    main()
