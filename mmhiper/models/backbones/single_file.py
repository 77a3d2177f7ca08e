"""Models that are one file, as their authors published them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

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


def read_stable_diffusion(
    source: ModelSource, kinds: Mapping[str, PartKind], dtype: torch.dtype
) -> dict[str, Any]:
    """Loads all parts from one checkpoint file, tensors only.

    The configs of the parts come from the folder of the file when that is a
    diffusers folder too, as in published repositories; otherwise diffusers
    recognises the model and fetches its small config files from the hub.

    Args:
        source (ModelSource): A ``.safetensors`` or ``.ckpt`` file.
        kinds (Mapping[str, PartKind]): The parts of its family.
        dtype (torch.dtype): Precision of the weights.

    Returns:
        dict[str, Any]: They, and the scheduler's config.

    Raises:
        ValueError: If it cannot be loaded.
    """
    import diffusers

    path = check_file(source.path, 'the single file of a model')
    check_weight_file(path)
    options = {}
    if source.index:
        options['config'] = str(path.resolve().parent)
        _check_classes(source, kinds)
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
            folder = str(Path(source.path).resolve().parent)
            raise FileError(
                f'The model_index.json in {folder!r} names '
                f'{printable(entry)[:80]} as its {name}, which is no part of '
                'a Stable Diffusion and is not imported. Move the single '
                'file to a folder of its own, or mend the index.'
            )
