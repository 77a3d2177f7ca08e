"""What files record of a frozen model: what decides what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from mmhiper.models.loading import PartSource
from mmhiper.models.schedulers import DDIM, check_recorded
from mmhiper.utils.arguments import ValuesOf, arguments_of, check_arguments

_Part = Annotated[dict[str, Any] | None, ValuesOf(PartSource)]
_SOURCE = ('pretrained', 'subfolder')  # of a scheduler


@dataclass(frozen=True)
class RecordedOptions:
    """The options of a frozen model that are recorded, beside its name.

    Attributes:
        dtype, unet, vae, text_encoder, vae_tiling: Of :class:`Backbone`.
        scheduler: Likewise, without its ``type``.
        sampler: That type.
        tail, t5_words: Of :class:`StableDiffusion3`.
    """

    dtype: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    unet: _Part = None
    vae: _Part = None
    text_encoder: _Part = None
    scheduler: dict[str, Any] | None = None
    sampler: str = DDIM
    vae_tiling: bool = False
    tail: Literal['clip', 't5', 'both'] | None = None
    t5_words: bool = False


def without_source(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The option ``scheduler`` but for where its config comes from.

    Args:
        scheduler: See :class:`Backbone`.

    Returns:
        ``type`` and values of its config.
    """
    return {k: v for k, v in scheduler.items() if k not in _SOURCE}


def recorded(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the values of a constructor those that are recorded.

    Args:
        given: Plain data.

    Returns:
        Without what is off, and of parts where they are from.
    """
    values = dict(given)
    for part in ('unet', 'vae', 'text_encoder'):
        if values.get(part):
            names = {field.name for field in fields(PartSource)}
            values[part] = {
                key: value
                for key, value in values[part].items()
                if key in names
            }
    return {
        field.name: values[field.name]
        for field in fields(RecordedOptions)
        if values.get(field.name)
    }


def config_of_record(options: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor values that a file has recorded.

    Args:
        options: See :class:`RecordedOptions`.

    Returns:
        All but ``pretrained``.

    Raises:
        ValueError: If one is unknown, of a wrong type or out of range.
    """
    check_arguments(options, arguments_of(RecordedOptions))
    given = dict(options)
    scheduler = given.pop('scheduler', None) or {}
    sampler = given.pop('sampler', DDIM)
    source = {k: scheduler[k] for k in _SOURCE if k in scheduler}
    check_arguments(source, arguments_of(PartSource))
    check_recorded(sampler, without_source(scheduler))
    return dict(given, scheduler=dict(scheduler, type=sampler))
