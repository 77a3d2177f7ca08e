"""What files of the field are that hold no words, told by their names.

So a file in the wrong place is told apart from a damaged one, and the message
says where it belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_BACKBONE = (
    'Give it as the backbone: `sd.pretrained` of a config, `backbone` or '
    '`pretrained` of a command.'
)
_FOLDER = (
    'Give its folder in the diffusers layout, or its hub id, as the '
    'backbone: `sd.pretrained` of a config, `backbone` of a command.'
)
_PART = (
    'It is a part of a backbone: give its folder in the diffusers layout as '
    '`sd.{}.pretrained` of a config.'
)
_FUSE = (
    'It changes the weights of a frozen model: fuse it into one by diffusers '
    '(`load_lora_weights`, `fuse_lora`, `save_pretrained`), and give that '
    'folder as the backbone, `sd.pretrained` of a config or `backbone` of a '
    'command.'
)
_UNKNOWN = 'No backbone of this package is of that kind (Stable Diffusion '
_UNKNOWN += '1.x, 2.x, XL and 3 are).'
_PIPELINE = 'It belongs to a pipeline of diffusers (`{}`), not to an editor.'

# What a name in the file shows, what the file then is, and where it belongs.
# The first that is found counts: adapters name the parts that they adapt.
_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        r'^(ip_adapter|image_proj)(\.|$)',
        'an IP-Adapter, which reads prompts from pictures',
        _PIPELINE.format('load_ip_adapter'),
    ),
    (
        r'^control_model\.|^controlnet_|^input_hint_block|^zero_convs'
        r'|(^|\.)controlnet_cond_embedding|^lora_controlnet$',
        'a ControlNet',
        _PIPELINE.format('ControlNetModel.from_single_file'),
    ),
    (
        r'^(adapter\.)?body\.\d+\.(resnets|block\d|in_conv)',
        'a T2I-Adapter',
        _PIPELINE.format('T2IAdapter'),
    ),
    (
        r'(^|\.)motion_modules\.',
        'a motion module of AnimateDiff',
        _PIPELINE.format('MotionAdapter'),
    ),
    (r'\.dora_scale$|lora_magnitude_vector', 'a LoRA (DoRA)', _FUSE),
    (r'\.hada_[wt]\d', 'a LoRA of LyCORIS (LoHa)', _FUSE),
    (r'\.lokr_[wt]\d', 'a LoRA of LyCORIS (LoKr)', _FUSE),
    (r'\.oft_(blocks|diag)|\.oft_R', 'a LoRA of LyCORIS (OFT)', _FUSE),
    (r'\.lora_mid\.', 'a LoRA of LyCORIS (LoCon)', _FUSE),
    (r'^lora_(unet|te\d?|transformer)_', "a LoRA in kohya's layout", _FUSE),
    (
        r'(^|[._])lora[._](up|down|a|b|layer|linear_layer|embedding_[ab])'
        r'([._]|$)|(^|\.)lora_(te\d?|unet)_',
        'a LoRA in the layout of diffusers or PEFT',
        _FUSE,
    ),
    (
        r'^(model\.diffusion_model\.)?joint_blocks\.',
        'a Stable Diffusion 3 in a single file',
        _FOLDER,
    ),
    (
        r'^(model\.diffusion_model\.)?(double|single)_blocks\.'
        r'|^single_transformer_blocks\.',
        'a Flux model',
        _UNKNOWN,
    ),
    (
        r'^conditioner\.embedders\.',
        'a Stable Diffusion XL in a single file',
        _FOLDER,
    ),
    (
        r'^cond_stage_model\.model\.',
        'a Stable Diffusion 2.x in a single file',
        _BACKBONE,
    ),
    (
        r'^cond_stage_model\.transformer\.(token_emb|attn_layers)\.',
        'a latent diffusion model (text to image) in a single file',
        'Put it into its diffusers folder, beside the model_index.json, and '
        'give the file as the backbone: `sd.pretrained` of a config.',
    ),
    (
        r'^cond_stage_model\.',
        'a Stable Diffusion 1.x in a single file',
        _BACKBONE,
    ),
    (
        r'^model\.diffusion_model\.',
        'the U-Net of a Stable Diffusion',
        _PART.format('unet'),
    ),
    (
        r'^transformer_blocks\.\d+\.(attn|ff)',
        'a diffusion transformer',
        _UNKNOWN,
    ),
    (
        r'^(down_blocks|input_blocks|time_embed(ding)?)\.',
        'the U-Net of a Stable Diffusion',
        _PART.format('unet'),
    ),
    (
        r'^(first_stage_model\.|(post_)?quant_conv\.)'
        r'|^(en|de)coder\.(down|up|mid|conv_in)',
        'the autoencoder (VAE) of a Stable Diffusion',
        _PART.format('vae'),
    ),
    (
        r'(^|\.)(vision_model|visual)\.',
        'a CLIP model',
        'Name its folder or hub id where CLIP is asked for (`clip`).',
    ),
    (
        r'(^|\.)text_model\.|(^|\.)token_embedding\.weight$'
        r'|^transformer\.resblocks\.',
        'a text encoder',
        _PART.format('text_encoder'),
    ),
    (r'^encoder\.block\.\d+\.layer\.', 'a T5 text encoder', _UNKNOWN),
)


def model_kind(entries: Mapping[Any, Any]) -> str | None:
    """Tells what a file is, if it is known and holds no words.

    Args:
        entries: What the file holds, by name.

    Returns:
        Two sentences from 'it is' on: what it is, and where it belongs.
    """
    if _is_hypernetwork(entries):
        return (
            'it is a hypernetwork of the A1111 web UI. It belongs into the '
            'models/hypernetworks of that; nothing else reads it.'
        )
    state = entries.get('state_dict', entries)
    names = [
        name
        for each in (entries, state)
        if isinstance(each, Mapping)
        for name in each
        if isinstance(name, str)
    ]
    for pattern, kind, place in _KINDS:
        if _any(pattern, names):
            words = ''
            if _any(r'^bundle_emb\.', names):
                words = ' with words bundled in, which are not read'
            return f'it is {kind}{words}. {place}'
    return None


def _any(pattern: str, names: Iterable[str]) -> bool:
    found = re.compile(pattern, re.IGNORECASE).search
    return any(found(name) for name in names)


def _is_hypernetwork(entries: Mapping[Any, Any]) -> bool:
    """Whether there are layers by the widths that they change."""
    return 'layer_structure' in entries or any(
        isinstance(name, int) and isinstance(value, list | tuple)
        for name, value in entries.items()
    )
