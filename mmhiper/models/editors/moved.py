"""Where the options of mmagic's editors live here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mmhiper.utils.arguments import UnknownOptionError, arguments_of
from mmhiper.utils.errors import UserError

_SD = 'the frozen model is named once, `sd=dict(pretrained=NAME)`'
_PART = f'{_SD}; one part alone by `sd=dict(..., {{}}=dict(pretrained=...))`'
_TUNES = 'nothing of the frozen model is trained here, so leave it out'
_DREAMBOOTH = 'it is an option of DreamBooth, which is not here'
# By the names that mmagic gives them at the top level of a model.
MOVED = {
    'vae': _PART.format('vae'),
    'unet': _PART.format('unet'),
    'text_encoder': _PART.format('text_encoder'),
    'tokenizer': f'{_SD}, and its tokenizer comes with it',
    'scheduler': f'{_SD}, and its schedule of noise comes with it',
    'test_scheduler': (
        "pictures are sampled by `sd=dict(..., scheduler=dict(type='"
        "DDIMScheduler'))`, or `infer(..., scheduler='DDIMScheduler')`"
    ),
    'dtype': "it is `sd=dict(..., dtype='fp16')`; what is learned stays fp32",
    'enable_xformers': (
        "PyTorch's own fused attention is always on; leave it out"
    ),
    'noise_offset_weight': (
        'it is `noise_offset` of the editors that learn by denoising '
        '(HiPer, TextualInversion)'
    ),
    'tomesd_cfg': (
        'tokens are not merged here, since that changes pictures; for memory '
        'take `sd=dict(..., gradient_checkpointing=True, offload=True)`'
    ),
    'init_cfg': (
        '`load_editor(config, FILE)` and `--resume` load what was learned; a '
        'Textual Inversion starts from a file by `embedding=FILE`'
    ),
    'lora_config': _TUNES,
    'finetune_text_encoder': _TUNES,
    'class_prior_prompt': _DREAMBOOTH,
    'num_class_images': _DREAMBOOTH,
    'prior_loss_weight': _DREAMBOOTH,
}


def refusing_moved(init: Callable[..., None]) -> Callable[..., None]:
    """Has a constructor refuse keywords of mmagic's, and unknown ones.

    Args:
        init: An ``__init__``; a keyword that it names is its own affair.

    Returns:
        The same, which raises a ValueError that says where each of mmagic's
        lives here; and for one that nobody knows a ``TypeError``, with the
        nearest of those that there are.
    """
    own = inspect.signature(init).parameters

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        found = [name for name in options if name in MOVED and name not in own]
        if found:
            names = ', '.join(f'`{name}`' for name in found)
            advice = '. '.join(f'`{name}`: {MOVED[name]}' for name in found)
            raise UserError(
                f'{type(self).__name__} takes no {names}, which mmagic has. '
                f'{advice}.'
            )
        known = arguments_of(type(self), of_this_run=True)
        for name in options:
            if name not in known:
                raise UnknownOptionError(type(self).__name__, name, known)
        init(self, *args, **options)

    return checked
