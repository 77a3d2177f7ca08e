"""Draw a bench of edits of the mini world, in the layout of PIE-Bench.

    python tools/mini_sd/make_bench.py --out-dir work_dirs/mini_bench
    PYTHONPATH=tools/mini_sd mmhiper bench work_dirs/mini_bench \\
        --pretrained mini-sd --metrics configs/_base_/mini_world_bench.py

200 cases of nine of its ten sorts of edits, about as often as it has them;
there are no materials in this world. No individual in it was seen by the model
or by the judge. What no bench of photographs can have: each case comes with
the right answer, the drawing of what was asked (``goal_path``), and its mask
is where the two differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mmhiper.evaluation.benches.case import MASK_SIDE
from mmhiper.evaluation.benches.pie_bench import IMAGES, LIST, TYPES

from judge import truth
from world import (
    ACCESSORIES,
    FURS,
    PAINTS,
    PLACES,
    POSES,
    Scene,
    draw_with_mask,
    sample_individual,
)
from world.captions import ACCESSORY_WORDS, PLACE_WORDS
from world.scene import EYES

BENCH_SEED = 89  # a namespace: neither the model nor the judge saw it
GOALS = 'goal_images'
# Cases of each sort, as often as in PIE-Bench; there are no materials (7).
COUNTS = {0: 40, 1: 24, 2: 24, 3: 24, 4: 13, 5: 13, 6: 14, 8: 24, 9: 24}
# The autoencoder draws an edge over some pixels on both sides of it: four of
# the model's 128.
MARGIN = 16
# Another place has another horizon, which the published settings keep; those
# of the page of StyleDiffusion, for all editors alike.
PLACE_OPTIONS = dict(tau_v=0.0, tau_c=0.3, tau_s=0.3)


Drawn = tuple[Image.Image, Image.Image]  # a picture, its subject's mask


@dataclass(frozen=True)
class Edit:
    """An edit, in words and as it should look.

    Attributes:
        source: What is drawn.
        goal: What should be drawn instead.
        prompts: What is said of both, brackets around what changes.
        words: Whose place alone changes, of both prompts.
        options: Of prompt-to-prompt, where not the published ones.
    """

    source: Scene
    goal: Scene
    prompts: tuple[str, str]
    words: tuple[str, str] | tuple[()] = ()
    options: dict[str, float] = field(default_factory=dict)


def say(scene: Scene, *changes: str) -> str:
    """What is said of a scene, brackets around what changes.

    Args:
        scene: What is drawn.
        *changes: Of 'species', 'fur', 'pose', 'place', 'marks', 'accessory',
            'style'.
    """

    def mark(part: str, words: str) -> str:
        return f'[{words}]' if part in changes and words else words

    who = scene.individual
    sketch = scene.style == 'sketch'
    accessory = ''
    if scene.accessory:
        form = ACCESSORY_WORDS[scene.accessory][0]
        accessory = form.format(scene.accessory_name)
    marks = ''
    if who.pattern == 'spotted':
        marks = f'with {who.mark_name} spots'
    parts = (
        mark('style', 'a pencil sketch of') if sketch else '',
        'a',
        '' if sketch else mark('fur', who.fur_name),
        mark('species', who.species),
        mark('pose', scene.pose),
        mark('place', PLACE_WORDS[scene.place][0]),
        mark('accessory', accessory),
        mark('marks', marks),
    )
    return ' '.join(part for part in parts if part)


def _pick(rng: np.random.Generator, names: Any, *taken: str) -> str:
    """One of some names that is not taken."""
    return str(rng.choice([name for name in names if name not in taken]))


def _source(rng: np.random.Generator) -> Scene:
    """A plain scene, of which the prompt says all that edits change."""
    who = sample_individual(rng, _pick(rng, ('dog', 'cat')))
    return Scene(
        replace(who, pattern='plain', spots=()),
        _pick(rng, POSES),
        _pick(rng, PLACES),
        accessory_name=_pick(rng, PAINTS),
        flip=bool(rng.random() < 0.5),
        scale=float(rng.uniform(0.9, 0.98)),
        layout=int(rng.integers(2**31)),
    )


def _species(rng: np.random.Generator, scene: Scene) -> Scene:
    # all else stays: there is one right answer
    kind = 'cat' if scene.individual.species == 'dog' else 'dog'
    other = replace(
        scene.individual,
        species=kind,
        pointy_ears=kind == 'cat',
        eye=EYES[kind][0],
    )
    return replace(scene, individual=other)


def _fur(rng: np.random.Generator, scene: Scene) -> Scene:
    who = scene.individual
    name = _pick(rng, FURS, who.fur_name, who.mark_name)
    who = replace(who, fur_name=name, fur=FURS[name])
    return replace(scene, individual=who)


def _marks(rng: np.random.Generator, scene: Scene) -> Scene:
    who = scene.individual
    spots = tuple(
        (-0.7 + 0.35 * k, float(rng.uniform(-0.7, 0.3)), 0.3) for k in range(5)
    )
    who = replace(who, pattern='spotted', spots=spots)
    return replace(scene, individual=who)


def _pose(rng: np.random.Generator, scene: Scene) -> Scene:
    return replace(scene, pose=_pick(rng, POSES, scene.pose))


def _place(rng: np.random.Generator, scene: Scene) -> Scene:
    return replace(scene, place=_pick(rng, PLACES, scene.place))


def _accessory(rng: np.random.Generator, scene: Scene) -> Scene:
    return replace(scene, accessory=_pick(rng, ACCESSORIES))


def _style(rng: np.random.Generator, scene: Scene) -> Scene:
    return replace(scene, style='sketch')


CHANGES: dict[str, Callable[[np.random.Generator, Scene], Scene]] = dict(
    species=_species,
    fur=_fur,
    marks=_marks,
    pose=_pose,
    place=_place,
    accessory=_accessory,
    style=_style,
)
# What a sort of edits changes; a random one changes two things.
_OF_TYPE = {
    1: 'species',
    2: 'accessory',
    3: 'accessory',
    4: 'marks',
    5: 'pose',
    6: 'fur',
    8: 'place',
    9: 'style',
}


def make_edit(kind: int, number: int) -> Edit:
    """Draws up an edit.

    Args:
        kind: A sort of edits, of ``COUNTS``.
        number: Of the case in it; the same numbers, the same edit.
    """
    rng = np.random.default_rng([BENCH_SEED, kind, number])
    source = _source(rng)
    if kind == 0:
        names = [name for name in CHANGES if name != 'style']
        chosen = [str(each) for each in rng.choice(names, 2, replace=False)]
    else:
        chosen = [_OF_TYPE[kind]]
    goal = source
    for name in chosen:
        goal = CHANGES[name](rng, goal)
    if kind == 3:  # what was added is taken away
        source, goal = goal, source
    words: tuple[str, str] | tuple[()] = ()
    if 'species' in chosen:
        words = (source.individual.species, goal.individual.species)
    elif kind == 6:
        words = (source.individual.species,) * 2
    return Edit(
        source,
        goal,
        (say(source, *chosen), say(goal, *chosen)),
        words,
        PLACE_OPTIONS if 'place' in chosen else {},
    )


def draw_both(edit: Edit) -> tuple[Drawn, Drawn]:
    """What is there and what should be, each with the mask of its subject."""
    return (
        draw_with_mask(edit.source, MASK_SIDE),
        draw_with_mask(edit.goal, MASK_SIDE),
    )


def mask_of(edit: Edit, drawn: tuple[Drawn, Drawn]) -> np.ndarray:
    """Where an edit may change the picture, (512, 512) bool.

    What differs in the right answer, with a margin; all of the subject, of
    before and after, where it becomes another one or moves; all, if the style
    does.

    Args:
        edit: What is asked.
        drawn: See :func:`draw_both`.
    """
    if edit.source.style != edit.goal.style:
        return np.ones((MASK_SIDE, MASK_SIDE), bool)
    (old, before), (new, after) = drawn
    mask = (np.asarray(old) != np.asarray(new)).any(2)
    same = edit.source.individual == edit.goal.individual
    if not same or edit.source.pose != edit.goal.pose:
        for subject in (before, after):
            mask |= np.asarray(subject) > 127
    wide = F.max_pool2d(
        torch.from_numpy(mask)[None, None].float(),
        2 * MARGIN + 1,
        stride=1,
        padding=MARGIN,
    )
    return wide[0, 0].bool().numpy()


def runs_of(mask: np.ndarray) -> list[int]:
    """A mask as starts and lengths, line by line.

    Args:
        mask: (H, W) bool.
    """
    flat = np.concatenate([[False], mask.reshape(-1), [False]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.stack([ends[::2], ends[1::2] - ends[::2]], axis=1)
    return [int(number) for number in runs.reshape(-1)]


def make_case(kind: int, number: int, out_dir: Path) -> dict[str, Any]:
    """Draws a case.

    Args:
        kind: See :func:`make_edit`.
        number: Likewise.
        out_dir: Folder of the bench.

    Returns:
        Its row of the list.
    """
    edit = make_edit(kind, number)
    folder = f'{kind}_{TYPES[kind].replace(" ", "_")}_{COUNTS[kind]}'
    image = f'{folder}/{kind}{number:011d}.png'
    drawn = draw_both(edit)
    for root, (picture, _) in zip((IMAGES, GOALS), drawn, strict=True):
        path = out_dir / root / image
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    asked = {key: answer for key, answer in truth(edit.goal).items() if answer}
    target = edit.prompts[1].replace('[', '').replace(']', '')
    return dict(
        image_path=image,
        original_prompt=edit.prompts[0],
        editing_prompt=edit.prompts[1],
        editing_instruction=f'Make it {target}',
        editing_type_id=str(kind),
        blended_word=' '.join(edit.words),
        mask=runs_of(mask_of(edit, drawn)),
        goal_path=f'{GOALS}/{image}',
        edit_options=edit.options,
        asked=asked,
        subject=edit.source.individual.species,
    )


def main() -> None:
    """Draw the bench into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out-dir', type=Path, required=True)
    parser.add_argument(
        '--num-cases',
        type=int,
        default=sum(COUNTS.values()),
        help='so many, spread evenly over all (%(default)s)',
    )
    args = parser.parse_args()
    every = [(k, n) for k, count in COUNTS.items() for n in range(count)]
    if not 1 <= args.num_cases <= len(every):
        parser.error(f'--num-cases must be in [1, {len(every)}]')
    rows = {}
    for place in range(args.num_cases):
        kind, number = every[place * len(every) // args.num_cases]
        key = f'{kind}{number:011d}'
        rows[key] = make_case(kind, number, args.out_dir)
    (args.out_dir / LIST).write_text(json.dumps(rows, indent=1))
    print(f'{len(rows)} cases in {args.out_dir}')


if __name__ == '__main__':
    main()
