"""Models that are one file, as their authors published them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mmhiper.io.torch_file import read_torch_file
from mmhiper.models.loading import (
    SCHEDULER,
    ModelSource,
    PartKind,
    check_weight_file,
    loading,
    quiet,
)
from mmhiper.utils.errors import FileError, UserError
from mmhiper.utils.reading import check_file, printable

# Where an original checkpoint of latent diffusion has its text encoder, and
# the names there by the names in diffusers.
_TEXTS = 'cond_stage_model.transformer.'
_BERT = {
    'token_emb': 'model.embed_tokens',
    'pos_emb': 'model.embed_positions',
    'norm': 'model.layer_norm',
}
_BERT_LAYERS = (
    {
        '0': 'self_attn_layer_norm',
        '1.to_q': 'self_attn.q_proj',
        '1.to_k': 'self_attn.k_proj',
        '1.to_v': 'self_attn.v_proj',
        '1.to_out': 'self_attn.out_proj',
    },
    {'0': 'final_layer_norm', '1.net.0.0': 'fc1', '1.net.2': 'fc2'},
)


def read_stable_diffusion(
    source: ModelSource, kinds: Mapping[str, PartKind], dtype: torch.dtype
) -> dict[str, Any]:
    """Loads all parts from one checkpoint file, tensors only.

    The configs of the parts come from the folder of the file when that is a
    diffusers folder too, as in published repositories; otherwise diffusers
    recognises the model and fetches its small config files from the hub.

    Args:
        source: A ``.safetensors`` or ``.ckpt`` file.
        kinds: The parts of its family.
        dtype: Precision of the weights.

    Returns:
        They, and the scheduler's config.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import diffusers

    path = check_file(source.path, 'the single file of a model')
    check_weight_file(path)
    options = {}
    if source.index:
        options['config'] = source.folder
        _check_classes(source, kinds)
    elif _is_latent_diffusion(path):
        raise FileError(
            f'{source.path!r} is a latent diffusion model, whose file does '
            'not say how to read it. Put it into its diffusers folder, beside '
            'the model_index.json; of that folder no weights are read.'
        )
    with quiet(), loading(source.path, 'the parts'):
        pipeline = diffusers.StableDiffusionPipeline.from_single_file(
            source.path,
            torch_dtype=dtype,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            **options,
        )
    if pipeline.unet.config.addition_embed_type is not None:
        raise UserError(
            'A Stable Diffusion XL cannot be read from the single file '
            f'{source.path!r}. Give its folder in the diffusers layout or '
            'its hub id.'
        )
    return dict(
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler=dict(pipeline.scheduler.config),
    )


def read_latent_diffusion(
    source: ModelSource, kinds: Mapping[str, PartKind], dtype: torch.dtype
) -> dict[str, Any]:
    """Loads the weights of the original text-to-image ``model.ckpt``.

    Args:
        source: A ``.ckpt`` or ``.safetensors`` file in a diffusers folder,
            whose configs say how to read it.
        kinds: The parts of its family.
        dtype: Precision of the weights.

    Returns:
        They, but for the tokenizer, which is in the folder.

    Raises:
        ValueError: If it cannot be loaded.
    """
    path = check_file(source.path, 'the single file of a model')
    check_weight_file(path)
    folder = source.folder
    with quiet(), loading(source.path, 'the parts'):
        weights = _weights_of(path)
        parts: dict[str, Any] = {
            name: kinds[name].loader.from_single_file(
                dict(weights),  # which it takes apart
                config=folder,
                subfolder=kinds[name].folder,
                torch_dtype=dtype,
            )
            for name in ('unet', 'vae')
        }
        bert = kinds['text_encoder']
        model = bert.loader(
            bert.loader.config_class.from_pretrained(
                folder, subfolder=bert.folder
            )
        )
        texts = {
            _bert_name(name.removeprefix(_TEXTS)): weight
            for name, weight in weights.items()
            if name.startswith(_TEXTS)
        }
        model.load_state_dict(texts)
    parts['text_encoder'] = model.to(dtype)
    return parts


def _is_latent_diffusion(path: Path) -> bool:
    """Whether a file has the text encoder of latent diffusion."""
    with loading(str(path), 'the names of its weights'):
        if path.suffix == '.safetensors':
            with safe_open(path, 'pt') as file:
                names = file.keys()
        else:
            names = _weights_of(path).keys()
        return f'{_TEXTS}token_emb.weight' in names


def _weights_of(path: Path) -> Mapping[str, Tensor]:
    """The weights in a file, which are read when they are used."""
    if path.suffix == '.safetensors':
        return load_file(path)
    content = read_torch_file(path)
    return content.get('state_dict', content)


def _bert_name(name: str) -> str:
    """The name in diffusers of a weight of the original text encoder."""
    found = re.fullmatch(r'attn_layers\.layers\.(\d+)\.(.+)', name)
    if found is None:
        start, dot, rest = name.partition('.')
        return _BERT.get(start, start) + dot + rest.replace('emb.', '')
    # layers of attention and of feed-forward by turns
    layer, forward = divmod(int(found[1]), 2)
    rest, _, kind = found[2].rpartition('.')
    return f'model.layers.{layer}.{_BERT_LAYERS[forward][rest]}.{kind}'


def _check_classes(source: ModelSource, kinds: Mapping[str, PartKind]) -> None:
    """Refuses an index that names other classes than those of a family.

    diffusers imports what the index beside a single file names, whatever
    library that is.
    """
    classes = {kind.folder: kind.kind.split('.') for kind in kinds.values()}
    for name, entry in source.index.items():
        if name == SCHEDULER:
            known = (
                isinstance(entry, list)
                and len(entry) == 2
                and entry[0] == 'diffusers'
                and str(entry[1]).endswith('Scheduler')
            )
        elif name in classes:
            library, kind = classes[name]
            known = entry in ([library, kind], [library, f'{kind}Fast'])
        else:  # is not loaded from there
            continue
        if not known:
            raise FileError(
                f'The model_index.json in {source.folder!r} names '
                f'{printable(entry)[:80]} as its {name}, which is no part of '
                'a Stable Diffusion and is not imported. Move the single '
                'file to a folder of its own, or mend the index.'
            )
