"""A tiny model as one file, in the layout of the original checkpoints.

Diffusers only reads this layout, so the names are written out here, the other
way round, for the one U-Net and the one autoencoder of ``tiny.py``.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

RESNET = {
    'norm1': 'in_layers.0',
    'conv1': 'in_layers.2',
    'time_emb_proj': 'emb_layers.1',
    'norm2': 'out_layers.0',
    'conv2': 'out_layers.3',
    'conv_shortcut': 'skip_connection',
}
UNET = {
    'conv_in': 'input_blocks.0.0',
    'time_embedding.linear_1': 'time_embed.0',
    'time_embedding.linear_2': 'time_embed.2',
    'down_blocks.0.resnets.0': 'input_blocks.1.0',
    'down_blocks.0.downsamplers.0.conv': 'input_blocks.2.0.op',
    'down_blocks.1.resnets.0': 'input_blocks.3.0',
    'down_blocks.1.attentions.0': 'input_blocks.3.1',
    'mid_block.resnets.0': 'middle_block.0',
    'mid_block.attentions.0': 'middle_block.1',
    'mid_block.resnets.1': 'middle_block.2',
    'up_blocks.0.resnets.0': 'output_blocks.0.0',
    'up_blocks.0.attentions.0': 'output_blocks.0.1',
    'up_blocks.0.resnets.1': 'output_blocks.1.0',
    'up_blocks.0.attentions.1': 'output_blocks.1.1',
    'up_blocks.0.upsamplers.0': 'output_blocks.1.2',
    'up_blocks.1.resnets.0': 'output_blocks.2.0',
    'up_blocks.1.resnets.1': 'output_blocks.3.0',
    'conv_norm_out': 'out.0',
    'conv_out': 'out.2',
    'add_embedding.linear_1': 'label_emb.0.0',
    'add_embedding.linear_2': 'label_emb.0.2',
}
ATTENTION = {
    'group_norm': 'norm',
    'to_q': 'q',
    'to_k': 'k',
    'to_v': 'v',
    'to_out.0': 'proj_out',
}


def _renamed(name: str, table: dict[str, str]) -> str:
    """The name with its longest known start replaced."""
    starts = [old for old in table if name.startswith(f'{old}.')]
    old = max(starts, key=len)
    return table[old] + name.removeprefix(old)


def _unet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The U-Net's weights by their original names."""
    result = {}
    for name, weight in weights.items():
        new = _renamed(name, UNET)
        if '.resnets.' in name:
            stem, part, kind = new.rsplit('.', 2)
            new = f'{stem}.{RESNET[part]}.{kind}'
        result[f'model.diffusion_model.{new}'] = weight
    return result


def _vae(weights: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The autoencoder's weights by their original names."""
    result = {}
    for name, weight in weights.items():
        words = name.split('.')
        side = words[0]
        if side in ('encoder', 'decoder') and words[1].endswith('_blocks'):
            down = words[1] == 'down_blocks'
            # original decoders count from the end
            level = int(words[2]) if down else blocks - 1 - int(words[2])
            stem = f'{side}.{"down" if down else "up"}.{level}'
            if words[3] == 'resnets':
                new = '.'.join([stem, 'block', *words[4:]])
            else:
                sampler = 'downsample' if down else 'upsample'
                new = '.'.join([stem, sampler, *words[5:]])
        elif words[1] == 'mid_block' and words[2] == 'resnets':
            new = '.'.join(
                [side, 'mid', f'block_{int(words[3]) + 1}', *words[4:]]
            )
        elif words[1] == 'mid_block':
            part = _renamed('.'.join(words[4:]), ATTENTION)
            new = f'{side}.mid.attn_1.{part}'
            if weight.ndim == 2:  # a 1x1 convolution there
                weight = weight[:, :, None, None]
        else:
            new = name.replace('conv_norm_out', 'norm_out')
        new = new.replace('conv_shortcut', 'nin_shortcut')
        result[f'first_stage_model.{new}'] = weight
    return result


def original_layout(folder: Path) -> dict[str, Tensor]:
    """All weights of a tiny diffusers folder by their original names.

    Args:
        folder (Path): Of ``build_tiny_folder``.

    Returns:
        dict[str, Tensor]: What an original checkpoint holds.
    """
    parts = {
        part: load_file(next((folder / part).glob('*.safetensors')))
        for part in ('unet', 'vae', 'text_encoder')
    }
    text = {
        'cond_stage_model.transformer.text_model.'
        + name.removeprefix('text_model.'): weight
        for name, weight in parts['text_encoder'].items()
    }
    return {**_unet(parts['unet']), **_vae(parts['vae'], 4), **text}


BERT = {
    'model.embed_tokens': 'token_emb',
    'model.embed_positions': 'pos_emb.emb',
    'model.layer_norm': 'norm',
    'to_logits': 'to_logits',
}
BERT_LAYER = {
    'self_attn_layer_norm': (0, '0'),
    'self_attn.q_proj': (0, '1.to_q'),
    'self_attn.k_proj': (0, '1.to_k'),
    'self_attn.v_proj': (0, '1.to_v'),
    'self_attn.out_proj': (0, '1.to_out'),
    'final_layer_norm': (1, '0'),
    'fc1': (1, '1.net.0.0'),
    'fc2': (1, '1.net.2'),
}


def original_ldm_layout(folder: Path) -> dict[str, Tensor]:
    """Likewise of a tiny folder of latent diffusion.

    Args:
        folder (Path): Of ``build_tiny_ldm``.

    Returns:
        dict[str, Tensor]: What the original ``model.ckpt`` holds.
    """
    parts = {
        part: load_file(next((folder / part).glob('*.safetensors')))
        for part in ('unet', 'vqvae', 'bert')
    }
    text = {}
    for name, weight in parts['bert'].items():
        stem, kind = name.rsplit('.', 1)
        if stem.startswith('model.layers.'):
            _, _, number, part = stem.split('.', 3)
            forward, new = BERT_LAYER[part]
            stem = f'attn_layers.layers.{2 * int(number) + forward}.{new}'
        else:
            stem = BERT[stem]
        text[f'cond_stage_model.transformer.{stem}.{kind}'] = weight
    return {**_unet(parts['unet']), **_vae(parts['vqvae'], 4), **text}
