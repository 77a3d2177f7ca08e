"""What a training takes over from an exported model instead of chance."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from .clip import ClipPair, build_clip
from .common import Log, save
from .tokenizer import load_tokenizer
from .unet import build_unet
from .vae import build_vae

DIFFUSERS = 'diffusion_pytorch_model.safetensors'
TRANSFORMERS = 'model.safetensors'
ROWS = 'embeddings.token_embedding.weight'


def take_over(stage: str, folder: Path, work_dir: Path, log: Log) -> None:
    """Write ``{stage}_start.pth``, from which `fit` begins.

    Args:
        stage: ``vae``, ``clip`` or ``unet``; others begin where those ended.
        folder: An exported model. Its tokenizer may be another: words that
            both know keep their rows, new ones begin at random, as do names,
            which no export holds.
        work_dir: Of the training.
        log: Where it is told.
    """
    if stage == 'vae':
        name, model = 'autoencoder', build_vae()
        for part in (model.encoder, model.decoder):
            # where the export has no attention, it begins by adding nothing
            nn.init.zeros_(part.mid_block.attentions[0].to_out[0].weight)
            nn.init.zeros_(part.mid_block.attentions[0].to_out[0].bias)
        _fill(model, load_file(folder / 'vae' / DIFFUSERS))
    elif stage == 'unet':
        name, model = 'unet', build_unet()
        _fill(model, load_file(folder / 'unet' / DIFFUSERS))
    elif stage == 'clip':
        name, model = 'clip', _pair(folder, work_dir)
    else:
        return
    save(work_dir / f'{name}_start.pth', model=model.state_dict())
    log(f'{name}: begins from {folder}')


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f'No place for {unknown[0]} in the model to train.')


def _pair(folder: Path, work_dir: Path) -> nn.Module:
    pair = build_clip(work_dir)
    texts = load_file(folder / 'text_encoder' / TRANSFORMERS)
    old = json.loads((folder / 'tokenizer' / 'vocab.json').read_text())
    new = load_tokenizer(work_dir).get_vocab()
    texts[ROWS] = _moved(pair, texts[ROWS].float(), old, new)
    pair.text.load_state_dict(texts)
    pair.image.load_state_dict(
        load_file(folder / 'image_encoder' / TRANSFORMERS)
    )
    return pair


def _moved(
    pair: ClipPair, rows: Tensor, old: dict[str, int], new: dict[str, int]
) -> Tensor:
    """Rows (V, D) of the old vocabulary in the order of the new one."""
    table = pair.text.get_input_embeddings().weight.detach().clone()
    both = sorted(old.keys() & new.keys())
    table[[new[token] for token in both]] = rows[[old[t] for t in both]]
    return table
