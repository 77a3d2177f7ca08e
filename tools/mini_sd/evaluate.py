"""Measure the mini model, and the editors on it, with the judge.

    python tools/mini_sd/evaluate.py                     # the model itself
    python tools/mini_sd/evaluate.py --guidance 1 2 3 5 7.5   # and others'
    python tools/mini_sd/evaluate.py --editor hiper      # HiPer's table
    python tools/mini_sd/evaluate.py --editor hiper \\
        --n-hiper 1 3 5 10 20 --strength 0.6 0.8 1.0     # its ablation
    python tools/mini_sd/evaluate.py --editor textual_inversion \\
        --vectors 1 2 4                                  # learned words

The model is run through an unmodified diffusers pipeline. Sheets
and figures (``model.json``, ``hiper.json``) go to ``--out-dir``. With them
stands how good the judge itself is.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from mmhiper.threads import bound_spin

bound_spin()  # before torch is loaded

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from panels import label, psnr, sheet
from PIL import Image

from mmhiper.cli.options import ConfigOptions
from mmhiper.models.guidance import OF_STABLE_DIFFUSION, own_scale
from mmhiper.models.loading import BUNDLED, MINI_SD, quiet

from judge import DEFAULT_PATH, Judge, describe, load_judge, to_pixels
from world import (
    ACCESSORIES,
    FURS,
    PAINTS,
    PLACES,
    POSES,
    draw,
    sample_scene,
)
from world.captions import ACCESSORY_WORDS, PLACE_WORDS

PROMPT_SEED, DRAWING_SEED = 81, 82  # namespaces, disjoint from training


def sample_prompt(rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """Return a prompt and what the judge should answer about its picture."""
    asked = {
        'fur': str(rng.choice(list(FURS))),
        'species': str(rng.choice(('dog', 'cat'))),
        'pose': str(rng.choice(POSES)),
        'place': str(rng.choice(PLACES)),
    }
    words = [f'a {asked["fur"]} {asked["species"]} {asked["pose"]}']
    words.append(PLACE_WORDS[asked['place']][0])
    if rng.random() < 0.5:
        accessory = str(rng.choice(list(ACCESSORY_WORDS)))
        asked[accessory] = 'yes'
        colour = str(rng.choice(list(PAINTS)))
        words.append(ACCESSORY_WORDS[accessory][-1].format(colour))
    return ' '.join(words), asked


@torch.inference_mode()
def reconstruction(vae: AutoencoderKL, count: int) -> torch.Tensor:
    """PSNR in dB of the autoencoder on ``count`` unseen drawings, (count,)."""
    scenes = (
        sample_scene(np.random.default_rng([DRAWING_SEED, i]))
        for i in range(count)
    )
    pixels = to_pixels([draw(scene) for scene in scenes])
    values = []
    for x in pixels.split(32):
        latents = vae.encode(x).latent_dist.mode()
        values.append(psnr(vae.decode(latents).sample.clamp(-1, 1), x))
    return torch.cat(values)


def generate(
    pipe: StableDiffusionPipeline,
    prompts: list[str],
    seed: int,
    guidance: float,
    batch: int = 20,
) -> list[Image.Image]:
    """One picture per prompt: 50 DDIM steps, own seeds."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        generators = [
            torch.Generator().manual_seed(seed + start + i)
            for i in range(len(part))
        ]
        images += pipe(
            part,
            num_inference_steps=50,
            guidance_scale=guidance,
            generator=generators,
        ).images
    return images


def shares(
    asked: list[dict[str, str]], said: list[dict[str, str]]
) -> dict[str, float]:
    """How often each asked attribute, and everything asked, is right.

    Hat, scarf and ball count as ``accessory``; at most one is asked for.
    """
    right: dict[str, list[bool]] = {}
    for want, got in zip(asked, said, strict=True):
        hits = {
            'accessory' if name in ACCESSORIES else name: got[name] == value
            for name, value in want.items()
        }
        for name, hit in {**hits, 'everything': all(hits.values())}.items():
            right.setdefault(name, []).append(hit)
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def measure_model(
    folder: Path,
    judge: Judge,
    count: int,
    guidances: list[float] | None,
    out_dir: Path,
) -> dict[str, float | dict[str, float]]:
    """Measure the autoencoder, and how well pictures follow their prompts.

    The latter at each guidance, by default the model's own.
    """
    with quiet():
        pipe = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None
        )
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    if guidances is None:
        guidances = [
            own_scale(
                str(folder),
                pipe.unet,
                pipe.scheduler.config,
                '',
                OF_STABLE_DIFFUSION,
            )
        ]
    values = reconstruction(pipe.vae, 200)
    report: dict[str, float | dict[str, float]] = {
        'vae_psnr_db': float(values.mean()),
        'vae_psnr_db_worst': float(values.min()),
    }
    for guidance in guidances:
        name = f'guidance_{guidance:g}'
        # of one guidance the files have the same names whatever it is
        stem = out_dir / ('model' if len(guidances) == 1 else f'model_{name}')
        report[name] = measure_prompts(pipe, judge, count, guidance, stem)
    return report


def measure_prompts(
    pipe: StableDiffusionPipeline,
    judge: Judge,
    count: int,
    guidance: float,
    stem: Path,
) -> dict[str, float]:
    """Measure how well pictures follow their prompts at one guidance."""
    rng = np.random.default_rng(PROMPT_SEED)
    prompts, asked = zip(
        *(sample_prompt(rng) for _ in range(count)), strict=True
    )
    images = generate(pipe, list(prompts), PROMPT_SEED, guidance)
    said, _ = judge.look(images)
    panels = [label(*pair) for pair in zip(images, prompts, strict=True)]
    sheet(panels[:40], 8).save(f'{stem}.png')
    misses = [
        f'{i}: {prompt} -> {got}'
        for i, (prompt, want, got) in enumerate(
            zip(prompts, asked, said, strict=True)
        )
        if any(got[name] != value for name, value in want.items())
    ]
    Path(f'{stem}_misses.txt').write_text('\n'.join(misses) + '\n')
    return shares(list(asked), said)


def _strength(text: str) -> float | list[float]:
    factors = [float(word) for word in text.split(',')]
    return factors if len(factors) > 1 else factors[0]


def main() -> None:
    """Run the asked measurement and print and save its figures."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--pretrained', type=Path, default=BUNDLED[MINI_SD])
    parser.add_argument('--editor', choices=('hiper', 'textual_inversion'))
    parser.add_argument('--judge', type=Path, default=DEFAULT_PATH)
    parser.add_argument('--count', type=int, default=200, help='pictures')
    parser.add_argument(
        '--guidance',
        type=float,
        nargs='+',
        help="(the model's own); one for an editor, for more see "
        'sweep_guidance.py',
    )
    parser.add_argument('--individuals', type=int, default=20)
    parser.add_argument('--iters', type=int, help="the config's")
    parser.add_argument('--rate', type=float, help="the config's")
    parser.add_argument('--vectors', type=int, nargs='+', default=[1])
    parser.add_argument(
        '--name-place',
        action='store_true',
        help='HiPer: let all texts say where the animal is',
    )
    parser.add_argument(
        '--mask',
        action='store_true',
        help='HiPer: learn the animal alone, under its true mask',
    )
    parser.add_argument('--config', type=Path, help="(the editor's own)")
    parser.add_argument(
        '--n-hiper', type=int, nargs='+', default=[None], help="the config's"
    )
    parser.add_argument(
        '--strength',
        type=_strength,
        nargs='+',
        help="the config's; 0.4,0.8 is one for each stage of the noise",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='values of the config',
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/mini_sd/evaluation')
    )
    args = parser.parse_args()
    args.drawing = {}
    if args.editor and args.guidance:
        if len(args.guidance) > 1:
            parser.error('an editor is drawn at one --guidance')
        args.drawing['guidance_scale'] = args.guidance[0]
    args.out_dir.mkdir(parents=True, exist_ok=True)
    judge = load_judge(args.judge)
    start = time.perf_counter()
    report: dict = {'judge': judge.accuracy}
    if args.editor is None:
        report |= measure_model(
            args.pretrained, judge, args.count, args.guidance, args.out_dir
        )
    elif args.editor == 'hiper':
        from evaluate_hiper import measure_hiper

        report |= measure_hiper(args, judge)
    else:
        from evaluate_textual_inversion import measure_textual_inversion

        report |= measure_textual_inversion(args, judge)
    print(json.dumps(report, indent=2))
    print(describe(judge.accuracy))
    name = f'{args.editor or "model"}.json'
    (args.out_dir / name).write_text(json.dumps(report, indent=2) + '\n')
    seconds = time.perf_counter() - start
    print(f'{seconds:.0f} s; figures in {args.out_dir / name}')


if __name__ == '__main__':
    main()
