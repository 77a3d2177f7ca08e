"""Draws ``from_a_picture.png``: how much is drawn anew, and where.

python docs/draw_from_a_picture.py --out-dir DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from mmhiper.datasets import load_upright_image
from mmhiper.registry import MODELS
from mmhiper.utils import register_all_modules
from mmhiper.utils.sheet import draw_sheet

PICTURE = Path(__file__).parents[1] / 'data' / 'dog.png'
PROMPT = 'a standing cat on the grass'
SHARES = (0.4, 0.6, 0.8, 1.0)


def main() -> None:
    """Draws from one picture, whole and under a mask."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--out-dir', type=Path, required=True)
    out_dir = parser.parse_args().out_dir
    register_all_modules()
    # it has learned nothing: what is seen is what the options do
    editor = MODELS.build(
        dict(
            type='HiPer',
            sd=dict(type='StableDiffusion', pretrained='mini-sd'),
            source_text='a standing dog on the grass',
        )
    ).eval()
    source = load_upright_image(PICTURE)
    mask = Image.new('L', source.size, 0)
    width, height = source.size
    ImageDraw.Draw(mask).rectangle(  # the head, and room for ears
        (0.45 * width, 0.05 * height, 0.97 * width, 0.56 * height), fill=255
    )

    def draw(denoise: float, **options: Image.Image) -> tuple:
        (drawn,) = editor.infer(
            PROMPT,
            image=source,
            denoise=denoise,
            strength=0.0,  # the plain text
            show_progress=False,
            **options,
        )['samples']
        return f'denoise={denoise:g}', drawn

    size = (editor.sd.image_size,) * 2
    rows = [
        [(f'image; {PROMPT}', source.resize(size))],
        [('mask: white may change', mask.convert('RGB').resize(size))],
    ]
    for share in SHARES:
        rows[0].append(draw(share))
        rows[1].append(draw(share, mask=mask))
    draw_sheet(rows).save(out_dir / 'from_a_picture.png')


if __name__ == '__main__':
    main()
