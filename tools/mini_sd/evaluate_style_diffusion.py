"""StyleDiffusion and its baselines on the mini world: 20 unseen pictures, 4
edits of each.

    python tools/mini_sd/evaluate_style_diffusion.py

Every edit is also drawn as it should be, so the masks of what may change are
the true ones. Sheets and figures (``style_diffusion.json``) go to
``--out-dir``; a stopped evaluation goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmhiper.utils.sheet import draw_sheet

from judge import (
    DEFAULT_PATH,
    SIZE,
    Judge,
    describe,
    load_judge,
    to_pixels,
)
from world import FURS, PLACES, POSES, Scene, draw_with_mask, sample_individual
from world.captions import ACCESSORY_WORDS, PLACE_WORDS

EDIT_CASES = Path(__file__).parents[1] / 'edit_cases.py'
INDIVIDUAL_SEED = 85  # a namespace: neither the model nor the judge saw it
EDITORS = (
    'StyleDiffusion',
    'NullTextInversion',
    'NegativePromptInversion',
    'DirectInversion',
    'DDIMInversion',
)
SHOWN = 12  # edits on the sheet: all four of three pictures
# With the default taus of .6 nothing but the animal follows the text: the
# horizon is structure, and is kept. The same values for every editor; only
# StyleDiffusion reads tau_v: what it learned of a picture holds the place too,
# so the less of it the better (README, "Places").
PLACE_TAUS = dict(tau_v=0.0, tau_c=0.3, tau_s=0.3)
GUIDANCE = 7.5  # of training and editing, whatever a backbone's own is
# The autoencoder draws an edge over some pixels on both sides of it.
MARGIN = 4


@dataclass(frozen=True)
class Edit:
    """An edit of a picture, in words and as it should look.

    Attributes:
        name: Of the case.
        source: What is in the picture.
        goal: What should be in it afterwards.
        prompt: What is said of the source.
        target: What is said of the goal.
        blend_words: As in the tables of ``edit_cases.py``.
        taus: Likewise, where not the defaults.
        asked: What the judge should answer.
    """

    name: str
    source: Scene
    goal: Scene
    prompt: str
    target: str
    blend_words: str
    taus: dict[str, float]
    asked: dict[str, str]

    @property
    def kind(self) -> str:
        """What is edited: species, fur, place or accessory."""
        return self.name.split('_')[1]

    def keep(self) -> np.ndarray:
        """Where nothing should change, (128, 128) bool.

        The subject, if the place is edited; else what neither the subject
        nor its goal covers.
        """
        masks = np.stack(
            [
                np.asarray(draw_with_mask(scene, SIZE)[1]) > 127
                for scene in (self.source, self.goal)
            ]
        )
        if self.source.place != self.goal.place:
            return ~grow(~masks[0])
        return ~grow(np.logical_or(*masks))


def grow(mask: np.ndarray) -> np.ndarray:
    """Widens a mask by the margin on all sides."""
    values = torch.from_numpy(mask)[None, None].float()
    wide = F.max_pool2d(values, 2 * MARGIN + 1, stride=1, padding=MARGIN)
    return wide[0, 0].bool().numpy()


def make_edits(index: int, tau_v: float = PLACE_TAUS['tau_v']) -> list[Edit]:
    """Draw source ``index`` and choose its edits: species, fur, place, hat.

    ``tau_v`` is that of the edits of a place.
    """
    rng = np.random.default_rng([INDIVIDUAL_SEED, index])
    species, other = (('dog', 'cat'), ('cat', 'dog'))[index % 2]
    who = replace(sample_individual(rng, species), pattern='plain', spots=())
    pose = POSES[index // 2 % len(POSES)]
    place, elsewhere = (str(x) for x in rng.choice(PLACES, 2, replace=False))
    source = Scene(
        who, pose, place, flip=bool(rng.random() < 0.5), scale=0.95,
        layout=int(rng.integers(2**31)),
    )  # fmt: skip
    fur = str(rng.choice([name for name in FURS if name != who.fur_name]))
    accessory = str(rng.choice(('hat', 'scarf')))
    worn = ACCESSORY_WORDS[accessory][0].format('red')
    changed = replace(
        sample_individual(rng, other), fur_name=who.fur_name, fur=who.fur
    )

    def say(kind: str, colour: str, where: str) -> str:
        return f'a {colour} {kind} {pose} {PLACE_WORDS[where][0]}'

    prompt = say(species, who.fur_name, place)
    goals = {
        'species': (
            replace(source, individual=changed),
            say(other, who.fur_name, place),
            f'{species} > {other}',
            {'species': other},
        ),
        'fur': (
            replace(
                source, individual=replace(who, fur_name=fur, fur=FURS[fur])
            ),
            say(species, fur, place),
            species,
            {'species': species, 'fur': fur},
        ),
        'place': (
            replace(source, place=elsewhere),
            say(species, who.fur_name, elsewhere),
            '',
            {'species': species, 'place': elsewhere},
        ),
        'accessory': (
            replace(source, accessory=accessory),
            f'{prompt} {worn}',
            '',
            {'species': species, accessory: 'yes'},
        ),
    }
    return [
        Edit(
            name=f'{index:02d}_{kind}',
            source=source,
            goal=goal,
            prompt=prompt,
            target=target,
            blend_words=words,
            taus=PLACE_TAUS | {'tau_v': tau_v} if kind == 'place' else {},
            asked=asked,
        )
        for kind, (goal, target, words, asked) in goals.items()
    ]


def write_table(edits: list[Edit], out_dir: Path) -> Path:
    """Draw the sources and write the table of cases."""
    path = out_dir / 'cases.csv'
    with path.open('w', newline='') as file:
        table = csv.writer(file)
        table.writerow(
            ['name', 'image', 'prompt', 'target', 'blend_words', *PLACE_TAUS]
        )
        for edit in edits:
            image = f'{edit.name[:2]}.png'
            draw_with_mask(edit.source, 512)[0].save(out_dir / image)
            taus = [edit.taus.get(name, '') for name in PLACE_TAUS]
            texts = [edit.prompt, edit.target, edit.blend_words]
            table.writerow([edit.name, image, *texts, *taus])
    return path


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity at each pixel, in windows of 7x7.

    Args:
        a: (B, 3, H, W) in [-1, 1].
        b: Likewise.

    Returns:
        (B, H, W), the mean over colours; 1 where both are equal.
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (3, 3, 3, 3), 'reflect'), 7, stride=1)

    a, b = a / 2 + 0.5, b / 2 + 0.5  # it is made for [0, 1]
    small, tiny = 0.03**2, 0.01**2
    mean_a, mean_b = mean(a), mean(b)
    var_a = mean(a * a) - mean_a**2
    var_b = mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + tiny) / (mean_a**2 + mean_b**2 + tiny)
    return (light * (2 * both + small) / (var_a + var_b + small)).mean(1)


def masked_psnr(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """PSNR in dB where a mask is set.

    Args:
        a: (B, 3, H, W) in [-1, 1].
        b: Likewise.
        mask: (B, H, W) bool.

    Returns:
        (B,).
    """
    error = (a - b).square().mean(1)  # (B, H, W)
    mean = (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)
    return 10 * torch.log10(4 / mean.clamp_min(1e-12))


def score(judge: Judge, edits: list[Edit], folder: Path) -> dict[str, float]:
    """The figures of one editor.

    Args:
        judge: Says what is in a picture.
        edits: What was asked.
        folder: What ``edit_cases.py`` has drawn.

    Returns:
        The means of :func:`measure`, and the success of each kind of edit.
    """
    images = {
        kind: [
            Image.open(folder / edit.name / f'{kind}.png').convert('RGB')
            for edit in edits
        ]
        for kind in ('source', 'autoencoder', 'inversion', 'edit')
    }
    figures = measure(judge, edits, images)
    means = {name: float(values.mean()) for name, values in figures.items()}
    kinds = [edit.kind for edit in edits]
    for kind in dict.fromkeys(kinds):
        own = torch.tensor([each == kind for each in kinds])
        means[f'{kind}_success'] = float(figures['edit_success'][own].mean())
    return means


def measure(
    judge: Judge, edits: list[Edit], images: dict[str, list[Image.Image]]
) -> dict[str, Tensor]:
    """The figures of each edit.

    Args:
        judge: Says what is in a picture.
        edits: What was asked, E.
        images: Of each edit its 'source', 'autoencoder', 'inversion' and
            'edit'.

    Returns:
        (E,) each: PSNR in dB of the autoencoder and of the reconstruction;
        whether the judge sees all that was asked; PSNR and SSIM against the
        source where nothing should change.
    """
    pixels = {kind: to_pixels(each) for kind, each in images.items()}
    said, _ = judge.look(images['edit'])
    success = [
        all(got[name] == value for name, value in edit.asked.items())
        for edit, got in zip(edits, said, strict=True)
    ]
    source, edited = pixels['source'], pixels['edit']
    everywhere = torch.ones(len(edits), SIZE, SIZE, dtype=torch.bool)
    keep = torch.from_numpy(np.stack([edit.keep() for edit in edits]))
    similar = ssim_map(source, edited)
    area = keep.sum((1, 2)).clamp_min(1)
    return dict(
        autoencoder_psnr_db=masked_psnr(
            source, pixels['autoencoder'], everywhere
        ),
        reconstruction_psnr_db=masked_psnr(
            source, pixels['inversion'], everywhere
        ),
        edit_success=torch.tensor(success).float(),
        kept_psnr_db=masked_psnr(source, edited, keep),
        kept_ssim=(similar * keep).sum((1, 2)) / area,
    )


def side_by_side(edits: list[Edit], out_dir: Path, editors: list[str]) -> None:
    """Draw a row per edit: the source, and what each editor made of it."""
    rows = []
    for edit in edits:
        drawn = {each: out_dir / each / edit.name for each in editors}
        panels = [(edit.prompt, next(iter(drawn.values())) / 'source.png')]
        for editor, folder in drawn.items():
            panels.append((f'{editor}: {edit.target}', folder / 'edit.png'))
        rows.append([(text, Image.open(path)) for text, path in panels])
    draw_sheet(rows).save(out_dir / 'side_by_side.png')


def main() -> None:
    """Edit with every editor, and print and save the figures."""
    parser = argparse.ArgumentParser(
        description='Measure StyleDiffusion and its baselines.'
    )
    parser.add_argument('--pretrained', default='mini-sd')
    parser.add_argument('--judge', type=Path, default=DEFAULT_PATH)
    parser.add_argument('--individuals', type=int, default=20)
    parser.add_argument('--editors', nargs='+', default=EDITORS)
    parser.add_argument(
        '--tau-v',
        type=float,
        default=PLACE_TAUS['tau_v'],
        help='of the edits of a place (%(default)s)',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/mini_sd/style_diffusion'),
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='passed on, for instance model.num_inner_steps=100',
    )
    args = parser.parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    judge = load_judge(args.judge)
    edits = [
        edit
        for index in range(args.individuals)
        for edit in make_edits(index, args.tau_v)
    ]
    table = write_table(edits, args.out_dir)
    report = {'judge': judge.accuracy}
    for editor in args.editors:
        folder = args.out_dir / editor
        command = [sys.executable, str(EDIT_CASES), str(table)]
        command += ['--out-dir', str(folder), '--editor', editor]
        command += ['--cfg-options', f'model.sd.pretrained={args.pretrained}']
        command += ['model.sd.without_cuda=None']
        command += [f'model.guidance_scale={GUIDANCE}', *args.cfg_options]
        command += [
            f'model.image_encoder.pretrained={args.pretrained}',
            'model.image_encoder.without_cuda=None',
        ]
        subprocess.run(command, check=True)
        report[editor] = score(judge, edits, folder)
        print(editor, json.dumps(report[editor], indent=2))
    print(describe(judge.accuracy))
    side_by_side(edits[:SHOWN], args.out_dir, args.editors)
    path = args.out_dir / 'style_diffusion.json'
    path.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
