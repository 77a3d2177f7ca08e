"""Schedulers of diffusers, made of the config that a model comes with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmhiper.models.loading import quiet
from mmhiper.utils.arguments import arguments_of, check_arguments
from mmhiper.utils.errors import UserError

DDIM = 'DDIMScheduler'
FLOW = 'FlowMatchEulerDiscreteScheduler'
# Those that sample from a model of flow matching.
OF_FLOWS = (FLOW, 'FlowMatchHeunDiscreteScheduler')
MOST_TIMESTEPS = 10_000  # that a file may ask for; models have 1000
# Besides those that diffusers calls compatible: they sample from models that
# were distilled, such as Stable Diffusion with the weights of LCM merged in.
OF_DISTILLED_MODELS = ('LCMScheduler', 'TCDScheduler')
# What a scheduler config that leaves these out means in this family. The
# defaults of a bare DDIMScheduler are those of other models: clipping would
# cut latents, and other offsets or end points move every timestep.
DEFAULTS = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule='scaled_linear',
    set_alpha_to_one=False,
    steps_offset=1,
)


def scheduler_names() -> list[str]:
    """The schedulers of diffusers that sample from a Stable Diffusion.

    Returns:
        Names of classes, sorted. Those that need a library which is not
        installed are missing.
    """
    return sorted(filter(_fits, _candidates()))


def _candidates() -> set[str]:
    """What may be in the list."""
    from diffusers import DDIMScheduler

    return {*DDIMScheduler._compatibles, *OF_DISTILLED_MODELS}


def _fits(name: str) -> bool:
    """Whether a scheduler can be told a model's noise schedule."""
    return name in _candidates() and 'beta_start' in _options_of(name)


def _options_of(name: str) -> set[str]:
    """The values that the config of a scheduler may have."""
    import diffusers

    return set(inspect.signature(getattr(diffusers, name).__init__).parameters)


def split_type(
    scheduler: str | Mapping, usual: str = DDIM
) -> tuple[str, dict[str, Any]]:
    """Checks what a user calls a scheduler.

    Args:
        scheduler: The name of a class, or a mapping with it as 'type' and
            values of its config.
        usual: The one where none is named: :data:`DDIM` or, of a model of flow
            matching, :data:`FLOW`. It says which others there are.

    Returns:
        Name and values.

    Raises:
        ValueError: If there is no such scheduler, or it has no such value.
    """
    if isinstance(scheduler, str):
        scheduler = dict(type=scheduler)
    values = dict(scheduler)
    name = values.pop('type', usual)
    flows = usual == FLOW
    if name not in OF_FLOWS if flows else not _fits(name):
        known = OF_FLOWS if flows else scheduler_names()
        raise UserError(
            f'`scheduler` must be one of {", ".join(known)}, but got {name!r}.'
        )
    options = _options_of(name) | _options_of(usual)
    for value in values:
        if value not in options:
            raise UserError(
                f'{name} has no {value!r}; it has '
                f'{", ".join(sorted(options - {"self"}))}.'
            )
    return name, values


def check_recorded(name: str, values: Mapping[str, Any]) -> None:
    """Checks a scheduler that a file names, before anything is made of it.

    Args:
        name: The name of a class.
        values: Values of its config.

    Raises:
        ValueError: If there is no such scheduler, or a value is unknown, of a
            wrong type, or would need memory without bounds.
    """
    import diffusers

    usual = FLOW if name in OF_FLOWS else DDIM
    split_type(dict(values, type=name), usual)
    known = arguments_of(getattr(diffusers, usual))
    known |= arguments_of(getattr(diffusers, name))
    values = {k: v for k, v in values.items() if v is not None}
    check_arguments(values, known)
    steps = values.get('num_train_timesteps', 1)
    if not 1 <= steps <= MOST_TIMESTEPS:
        raise UserError(
            f'`num_train_timesteps` must be in [1, {MOST_TIMESTEPS}], but got '
            f'{steps}.'
        )


def make_scheduler(config: Mapping, scheduler: str | Mapping) -> Any:
    """Makes a scheduler that a model can be sampled with.

    Args:
        config: The scheduler config of the model, of any class.
        scheduler: See :func:`split_type`.

    Returns:
        A new scheduler; two runs never share their state.

    Raises:
        ValueError: See :func:`split_type`.
    """
    import diffusers

    name, values = split_type(scheduler)
    # Latents are not bounded by [-1, 1]; the pipelines never clip them.
    merged = {**DEFAULTS, **config, 'clip_sample': False, **values}
    with quiet():  # it does not know all values of the others
        return getattr(diffusers, name).from_config(merged)


def make_flow_scheduler(config: Mapping, scheduler: str | Mapping) -> Any:
    """Makes a scheduler that a model of flow matching can be sampled with.

    Args:
        config: The scheduler config of the model.
        scheduler: See :func:`split_type`.

    Returns:
        A new scheduler.

    Raises:
        ValueError: See :func:`split_type`.
    """
    import diffusers

    name, values = split_type(scheduler, FLOW)
    with quiet():  # it does not know all values of the others
        return getattr(diffusers, name).from_config({**config, **values})
