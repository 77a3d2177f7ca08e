"""The judge: tells what a picture of the mini world shows, and who is in it.

It is trained on drawings alone and never sees the model that it measures.
One small network answers what species, pose, place and fur it sees, and of
each accessory whether it is there. It gives an identity feature as well: a
unit vector that is near for pictures of the same individual, whatever it does
and wherever it is.

    python tools/mini_sd/judge.py            # measure it on unseen drawings
    python tools/mini_sd/judge.py --train    # half an hour of a core

Its weights, ``judge.safetensors`` beside this file, say how often it was right
when it was trained; every table that it judges repeats that.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from multiprocessing import Pool
from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from recipe.common import autocast
from torch import Tensor, nn

from mmhiper.cli.errors import user_errors
from mmhiper.io.file_content import (
    FileContent,
    read_content,
    write_content,
)
from mmhiper.utils.errors import MissingFileError
from mmhiper.utils.reading import JSON_DAMAGE, reading

from world import (
    ACCESSORIES,
    FURS,
    PLACES,
    POSES,
    SPECIES,
    Scene,
    draw,
    sample_individual,
    sample_scene,
)

SIZE = 128  # pixels
ANSWERS: dict[str, tuple[str, ...]] = {
    'species': SPECIES,
    'pose': POSES,
    'place': PLACES,
    'fur': tuple(FURS),
    # each on its own: a model may draw two where a drawing has one
    **dict.fromkeys(ACCESSORIES, ('no', 'yes')),
}
WARP = 0.08  # of half a side: five pixels
STAIN = 0.25  # of [-1, 1]
DEFAULT_PATH = Path(__file__).with_name('judge.safetensors')
TRAIN_SEED, TEST_SEED = 71, 72  # namespaces, disjoint from the model's own


def truth(scene: Scene) -> dict[str, str | None]:
    """Return the right answers for ``scene``, None where there is none."""
    who = scene.individual
    has_fur = who.species != 'robot' and scene.style != 'sketch'
    return {
        'species': who.species,
        'pose': scene.pose,
        'place': scene.place,
        'fur': who.fur_name if has_fur else None,
        **{
            name: 'yes' if name in scene.accessories else 'no'
            for name in ACCESSORIES
        },
    }


class Judge(nn.Module):
    """Classifiers and an identity feature on one convolutional trunk.

    Attributes:
        accuracy: How often it was right about drawings that it had not seen,
            in [0, 1], by question; see :func:`report`. Empty if that was not
            measured.
    """

    def __init__(self, width: int = 16, feature: int = 64) -> None:
        super().__init__()
        self.accuracy: dict[str, float] = {}
        w = width
        layers: list[nn.Module] = []
        plan = [(3, w, 2), (w, 2 * w, 2), (2 * w, 2 * w, 1)]
        plan += [(2 * w, 4 * w, 2), (4 * w, 4 * w, 1)]
        plan += [(4 * w, 6 * w, 2), (6 * w, 6 * w, 1)]
        for a, b, stride in plan:
            layers += [
                nn.Conv2d(a, b, 3, stride, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(inplace=True),
            ]
        self.trunk = nn.Sequential(*layers)
        pooled = 12 * w  # mean and maximum
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(pooled, 128),
                    nn.ReLU(),
                    nn.Linear(128, len(words)),
                )
                for name, words in ANSWERS.items()
            }
        )
        self.identity_head = nn.Sequential(
            nn.Linear(pooled, 256), nn.ReLU(), nn.Linear(256, feature)
        )

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Answer for ``pixels`` (B, 3, 128, 128) in [-1, 1].

        Returns:
            logits per question, each (B, choices), and the identity features
            (B, 64) of length one.
        """
        maps = self.trunk(pixels)  # (B, 6w, 8, 8)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        answers = {name: head(pooled) for name, head in self.heads.items()}
        return answers, F.normalize(self.identity_head(pooled), dim=1)

    @torch.inference_mode()
    def look(
        self, images: list[Image.Image]
    ) -> tuple[list[dict[str, str]], Tensor]:
        """Return the answers for each picture and their features (B, 64)."""
        self.eval()
        said: list[dict[str, str]] = []
        features = []
        for start in range(0, len(images), 64):
            logits, feature = self(to_pixels(images[start : start + 64]))
            features.append(feature)
            picks = {k: v.argmax(1).tolist() for k, v in logits.items()}
            for i in range(len(feature)):
                said.append({k: ANSWERS[k][v[i]] for k, v in picks.items()})
        return said, torch.cat(features)


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Stack pictures as (B, 3, 128, 128) in [-1, 1]."""
    arrays = [
        np.asarray(
            image.convert('RGB').resize((SIZE, SIZE), Image.Resampling.BOX)
        )
        for image in images
    ]
    batch = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    return batch.float() / 127.5 - 1


def _with_second_accessory(rng: np.random.Generator, scene: Scene) -> Scene:
    """Add another accessory to half of the scenes that have one."""
    others = [name for name in ACCESSORIES if name != scene.accessory]
    if scene.accessory is None or rng.random() < 0.5:
        return scene
    return replace(scene, second_accessory=str(rng.choice(others)))


def _draw_group(
    job: tuple[int, int, int],
) -> tuple[np.ndarray, list[list[int]]]:
    """Draw one individual in ``count`` scenes; pixels and answer indices."""
    seed, index, count = job
    rng = np.random.default_rng([seed, index])
    who = sample_individual(rng)
    pictures, answers = [], []
    for _ in range(count):
        scene = _with_second_accessory(rng, sample_scene(rng, who))
        pictures.append(np.asarray(draw(scene, SIZE)))
        right = truth(scene)
        answers.append(
            [
                ANSWERS[q].index(str(a)) if a is not None else -100
                for q, a in right.items()
            ]
            + [int(scene.style == 'plain')]
        )
    return np.stack(pictures), answers


def drawings(seed: int, individuals: int, count: int) -> tuple[Tensor, Tensor]:
    """Draw a set: uint8 (I, count, 3, 128, 128) and answers (I, count, 8)."""
    jobs = [(seed, i, count) for i in range(individuals)]
    with Pool() as pool:
        groups = pool.map(_draw_group, jobs, chunksize=32)
    pixels = torch.from_numpy(np.stack([g[0] for g in groups]))
    answers = torch.tensor([g[1] for g in groups])
    return pixels.permute(0, 1, 4, 2, 3).contiguous(), answers


def _blurred(pixels: Tensor, factor: int) -> Tensor:
    """Downsample by ``factor`` and scale up again."""
    small = F.avg_pool2d(pixels, factor)
    return F.interpolate(small, scale_factor=float(factor), mode='bilinear')


def _augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, warp, stain, tint and noise."""
    # So that no answer hangs on crisp edges, exact shapes or exact paints,
    # which generated pictures do not have. Half of the batch is blurred so far
    # that a hat is four to six pixels wide.
    b = len(pixels)

    def uniform(*shape: int) -> Tensor:
        """Random numbers in [-1, 1]."""
        return 2 * torch.rand(shape, generator=generator) - 1

    def smooth(channels: int, cells: int) -> Tensor:
        """Random fields (B, channels, 128, 128), about [-1, 1]."""
        return F.interpolate(
            uniform(b, channels, cells, cells),
            pixels.shape[-2:],
            mode='bicubic',
        )

    softer = uniform(b, 1, 1, 1) < 0
    soft = torch.where(softer, _blurred(pixels, 4), _blurred(pixels, 2))
    pixels = pixels + uniform(b, 1, 1, 1).abs() * (soft - pixels)
    still = F.affine_grid(
        torch.eye(2, 3).expand(b, 2, 3), list(pixels.shape), False
    )
    shift = WARP * uniform(b, 1, 1, 1) * smooth(2, 6)
    pixels = F.grid_sample(
        pixels,
        still + shift.permute(0, 2, 3, 1),
        padding_mode='border',
        align_corners=False,
    )
    pixels = pixels + STAIN * uniform(b, 1, 1, 1) * smooth(3, 8)
    noise = torch.randn(pixels.shape, generator=generator)
    return pixels * (1 + 0.06 * uniform(b, 3, 1, 1)) + 0.04 * noise


def train(individuals: int = 8000, epochs: int = 16) -> Judge:
    """Train the judge on drawings."""
    pixels, answers = drawings(TRAIN_SEED, individuals, 4)
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    with torch.random.fork_rng():
        torch.manual_seed(TRAIN_SEED)
        judge = Judge()
    judge.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = 64
    steps = epochs * (individuals // batch)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    judge.train()
    for step in range(steps):
        if step % (individuals // batch) == 0:
            order = torch.randperm(individuals, generator=generator)
        at = (step % (individuals // batch)) * batch
        who = order[at : at + batch]
        pair = torch.rand(batch, 4, generator=generator).argsort(1)[:, :2]
        x = pixels[who[:, None], pair].flatten(0, 1).float() / 127.5 - 1
        y = answers[who[:, None], pair].flatten(0, 1)
        with autocast():
            logits, feature = judge(_augment(x, generator))
        feature = feature.float()
        losses = [
            F.cross_entropy(logits[name].float(), y[:, i])
            for i, name in enumerate(ANSWERS)
        ]
        a, b = feature.view(batch, 2, -1).unbind(1)
        plain = y[:, -1].view(batch, 2).all(1)  # sketches carry no colours
        alike = (a @ b.T / 0.1)[plain][:, plain]
        target = torch.arange(len(alike))
        losses += [
            F.cross_entropy(alike, target),
            F.cross_entropy(alike.T, target),
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f'judge: step {step}/{steps}, loss {loss.item():.3f}',
                flush=True,
            )
    return judge.eval()


def save_judge(judge: Judge, path: Path = DEFAULT_PATH) -> None:
    """Write the weights, and as their metadata how good they are."""
    weights = {
        name: value.contiguous() for name, value in judge.state_dict().items()
    }
    note = {'accuracy': json.dumps(judge.accuracy)}
    write_content(FileContent(path, weights, note))


def load_judge(path: Path = DEFAULT_PATH) -> Judge:
    """Load a judge with its accuracy."""
    remedy = 'Train one by `python tools/mini_sd/judge.py --train`.'
    if not path.exists():
        raise MissingFileError(
            f'Wanted the weights of a judge, but {str(path)!r} does not '
            f'exist. {remedy}'
        )
    judge = Judge()
    content = read_content(path)
    with reading(path, 'is no judge', remedy):
        judge.load_state_dict(dict(content.entries))
    judge.accuracy = _read_accuracy(content, remedy)
    return judge.eval()


def _read_accuracy(content: FileContent, remedy: str) -> dict[str, float]:
    """The accuracy that a file notes; none where it notes nothing."""
    verdict = 'does not say how good this judge is'
    with reading(content.path, verdict, remedy, (*JSON_DAMAGE, TypeError)):
        noted = dict(json.loads(content.metadata.get('accuracy', '{}')))
        if noted and set(noted) != {*ANSWERS, 'identity'}:
            raise ValueError(f'wanted {[*ANSWERS, "identity"]} of it')
        if not all(0 <= share <= 1 for share in noted.values()):
            raise ValueError('wanted shares in [0, 1]')
    return noted


def describe(accuracy: dict[str, float]) -> str:
    """One line on how good the judge itself is."""
    if not accuracy:
        return 'The judge itself: not measured'
    shares = [f'{name} {100 * v:.1f} %' for name, v in accuracy.items()]
    return 'The judge itself, on unseen drawings: ' + ', '.join(shares)


@torch.inference_mode()
def report(judge: Judge, individuals: int = 400) -> dict[str, float]:
    """Measure the judge on unseen drawings; every share is in [0, 1]."""
    pixels, answers = drawings(TEST_SEED, individuals, 4)
    shares: dict[str, list[Tensor]] = {name: [] for name in ANSWERS}
    features = []
    for x, y in zip(pixels.split(32), answers.split(32), strict=True):
        logits, feature = judge(x.flatten(0, 1).float() / 127.5 - 1)
        y = y.flatten(0, 1)
        for i, name in enumerate(ANSWERS):
            known = y[:, i] >= 0
            right = logits[name].argmax(1) == y[:, i]
            shares[name].append(right[known].float())
        features.append(feature)
    result = {name: float(torch.cat(v).mean()) for name, v in shares.items()}
    result['identity'] = _identity_share(torch.cat(features), answers)
    return result


def _identity_share(features: Tensor, answers: Tensor) -> float:
    """How often the own picture in another pose is the nearest of 20."""
    features = features.view(*answers.shape[:2], -1)
    right = []
    for group in range(0, len(answers) - 19, 20):
        f, y = features[group : group + 20], answers[group : group + 20]
        for i in range(20):
            for a in range(1, y.shape[1]):
                other_pose = y[i, a, 1] != y[i, 0, 1]
                if other_pose and y[i, a, -1] and y[i, 0, -1]:
                    nearest = (f[:, 0] @ f[i, a]).argmax()
                    right.append(float(nearest == i))
    return float(np.mean(right))


def main() -> None:
    """Measure the judge, or train, measure and save one."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--path', type=Path, default=DEFAULT_PATH)
    parser.add_argument(
        '--train', action='store_true', help='train it anew, and replace PATH'
    )
    args = parser.parse_args()
    judge = train() if args.train else load_judge(args.path)
    measured = report(judge)
    if args.train:
        judge.accuracy = measured
        save_judge(judge, args.path)
    print(describe(measured))


if __name__ == '__main__':
    with user_errors():
        main()
