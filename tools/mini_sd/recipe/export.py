"""Stage ``export``: all parts as one folder in the diffusers layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor

from mmhiper.models.guidance import FILE as GUIDANCE

from .clip import MEAN, STD, load_clip
from .common import Log, load, newest
from .drawings import SIZE
from .encode import scaling_factor
from .tokenizer import load_tokenizer
from .unet import build_scheduler, build_unet
from .vae import load_vae


def export(work_dir: Path, folder: Path, log: Log) -> None:
    """Write ``folder`` from the newest weights, also while training goes on.

    Args:
        work_dir: Where the stages left their weights.
        folder: Replaced by the pipeline, fp16 safetensors.
        log: Where the size is told.
    """
    unet = build_unet()
    unet.set_default_attn_processor()
    weights = newest(
        *(work_dir / f'{n}.pth' for n in ('annealed', 'unet', 'unet_state'))
    )
    if weights is None:
        raise FileNotFoundError(f'No U-Net in {work_dir} yet.')
    saved = load(weights)
    unet.load_state_dict(saved.get('average', saved['model']))
    tuned = (work_dir / 'decoder.pth').exists()
    vae = load_vae(work_dir, 'decoder' if tuned else 'autoencoder')
    vae.register_to_config(scaling_factor=scaling_factor(work_dir))
    pair = load_clip(work_dir)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=pair.text.half(),
        tokenizer=load_tokenizer(work_dir),
        unet=unet.half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=CLIPImageProcessor(
            size={'shortest_edge': SIZE},
            crop_size={'height': SIZE, 'width': SIZE},
            image_mean=list(MEAN),
            image_std=list(STD),
        ),
        image_encoder=pair.image.half(),
        requires_safety_checker=False,
    )
    part = folder.with_name(folder.name + '.part')
    shutil.rmtree(part, ignore_errors=True)
    pipeline.save_pretrained(part)
    for name in ('vocab.json', 'merges.txt'):  # as older readers want it
        shutil.copy(work_dir / 'tokenizer' / name, part / 'tokenizer')
    keep_written(folder, part)
    # transformers loads what the config says, diffusers fp32: let them agree.
    for name in ('text_encoder', 'image_encoder'):
        path = part / name / 'config.json'
        config = json.loads(path.read_text())
        config['dtype'] = 'float32'
        path.write_text(json.dumps(config, indent=2) + '\n')
    # The name that every version of transformers knows.
    for name in (
        'model_index.json',
        'feature_extractor/preprocessor_config.json',
    ):
        text = (part / name).read_text()
        (part / name).write_text(
            text.replace('CLIPImageProcessorPil', 'CLIPImageProcessor')
        )
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
    size = sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())
    log(f'export: {folder}, {size / 1e6:.1f} MB')


def keep_written(old: Path, new: Path) -> None:
    """Copy what no training makes: the model card, and the guidance.

    The latter is chosen by ``sweep_guidance.py``, for these weights: sweep
    again.
    """
    for name in ('README.md', GUIDANCE):
        if (old / name).exists():
            shutil.copy(old / name, new)
