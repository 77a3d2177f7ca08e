"""Draws ``alignment.png``: a word swap with unequal token counts.

python docs/draw_alignment.py --out-dir DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.config import Config

from mmhiper.registry import DATASETS, MODELS
from mmhiper.utils import register_all_modules
from mmhiper.utils.pixels import to_pil
from mmhiper.utils.sheet import draw_sheet

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs' / 'style_diffusion' / 'dog_null_text.py'
PICTURE = ROOT / 'data' / 'style_diffusion' / 'ginger_cat.png'
SOURCE = 'a ginger cat standing in the snow wearing a red scarf'
# one word of three tokens: "dark", "-" and "brown"
TARGET = 'a dark-brown cat standing in the snow wearing a red scarf'


def main() -> None:
    """Inverts the picture once and edits it with either alignment."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--out-dir', type=Path, required=True)
    out_dir = parser.parse_args().out_dir
    register_all_modules()
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.dataset.img = str(PICTURE)
    editor = MODELS.build(
        dict(
            type='NegativePromptInversion',  # nothing to train
            sd=dict(type='StableDiffusion', pretrained='mini-sd'),
            source_text=SOURCE,
        )
    )
    item = DATASETS.build(cfg.train_dataloader.dataset)[0]
    batch = editor.data_preprocessor(
        dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
    )
    editor.invert(**batch)
    panels = [(f'source: {SOURCE}', to_pil(batch['inputs'][0]))]
    for align in ('words', 'official'):
        (drawn,) = editor.infer(TARGET, align=align, show_progress=False)[
            'samples'
        ]
        panels.append((f"align='{align}': {TARGET}", drawn))
    draw_sheet([panels]).save(out_dir / 'alignment.png')


if __name__ == '__main__':
    main()
