"""Parts of the page that several views have."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from mmhiper.io import read_picture_record
from mmhiper.studio import requests, uploads
from mmhiper.studio.runs import Run
from mmhiper.studio.site import Site
from mmhiper.studio.studio import downloads, shown
from mmhiper.utils.errors import UserError
from mmhiper.web.look import as_html

BUTTONS: Any = ['download', 'fullscreen']  # Gradio's third one shares
GALLERY: dict[str, Any] = dict(
    height='auto',
    object_fit='contain',
    format='png',
    buttons=BUTTONS,
    elem_classes='pictures',
)
STEPS = 'Steps of a picture'


@dataclass
class View:
    """A tab of a window."""

    site: Site
    tab: gr.Tab
    beat: gr.State  # changes when there is something new to show


def on(
    event: Callable,
    function: Callable,
    inputs: Any = None,
    outputs: Any = None,
    quiet: bool = False,
) -> None:
    """Has something happen at an event, here alone and not by an API.

    A user's mistake is shown as a message on the page.

    Args:
        event: Of a component.
        function: What happens, of the values of `inputs`.
        inputs: Components.
        outputs: Those that get what the function returns.
        quiet: Whether nobody waits for it, and the latest counts.
    """

    @functools.wraps(function)
    def told(*args: Any) -> Any:
        try:
            return function(*args)
        except (UserError, OSError) as error:
            raise gr.Error(
                html.escape(str(error)), duration=None, print_exception=False
            ) from None

    how = {'api_visibility': 'private'}
    if quiet:
        how |= {'show_progress': 'hidden', 'trigger_mode': 'always_last'}
    event(told, inputs, outputs, **how)


# ------------------------------------------------------------------- to ask
def photo(site: Site) -> Any:
    """A place to drop a photo, and one to crop it and to paint on it."""
    file = gr.File(label='Photo', height=130)
    picture = gr.ImageEditor(
        label='Crop, paint',
        type='pil',
        format='png',
        sources=(),
        transforms=('crop',),
        layers=False,
        buttons=BUTTONS,
        brush=gr.Brush(colors=['#ff5500'], color_mode='fixed'),
        height=420,
    )

    def read(path: str | None) -> Any:
        if path is None:
            return None
        image, remarks = uploads.read_upload(path, site.uploads)
        for remark in remarks:
            gr.Warning(html.escape(remark))
        return image

    on(file.change, read, file, picture)
    return picture


def read_photo(given: dict[str, Any] | None) -> tuple[Any, Any]:
    """Picture and mask of what :func:`photo` has, see `split_painted`."""
    if given is None:
        return uploads.split_painted(None, ())
    return uploads.split_painted(given['background'], given['layers'])


def count(label: str, value: int, most: int, **options: Any) -> Any:
    """A slider of whole numbers."""
    return gr.Slider(1, most, value, step=1, label=label, **options)


# ------------------------------------------------------------------ to show
def pictures(site: Site, label: str) -> tuple[list[Any], Callable]:
    """Pictures, what made the chosen one, and downloads.

    Returns:
        The components, and a function that gives them their values: of a run,
        its files, further ones to download, and whether there is something.
    """
    gallery = gr.Gallery(label=label, visible=False, **GALLERY)
    record = gr.JSON(label='What made this picture', visible=False)
    files = gr.File(label='Downloads', file_count='multiple', visible=False)
    paths = gr.State([])

    def tell(made: list[Path], event: gr.SelectData) -> Any:
        record = read_picture_record(made[event.index])
        return gr.update(value=record, visible=True)

    def fill(
        run: Run,
        made: list[Path],
        more: Sequence[Path] = (),
        done: bool = True,
    ) -> list[Any]:
        fetch = downloads(run, [*more, *made], site.uploads) if done else None
        return [
            gr.update(value=list(map(shown, made)), visible=bool(made)),
            gr.update(value=fetch, visible=done),
            made,
            gr.update(visible=False),
        ]

    on(gallery.select, tell, paths, record)
    return [gallery, files, paths, record], fill


def run_panel(view: View, kind: str) -> Any:
    """What is learned, and what came of it; the box that says which run."""
    site = view.site
    with gr.Row():
        which = gr.Dropdown(
            [], label='Run', allow_custom_value=True, scale=4, min_width=280
        )
        stop = gr.Button('Stop', min_width=100)
        go_on = gr.Button('Go on', min_width=100)
    status = gr.HTML(elem_classes='run')
    curve = gr.LinePlot(
        x='iteration',
        y='loss',
        title='Loss on noise that stays the same',
        height=200,
        visible=False,
    )
    options: Any = dict(format='png', buttons=BUTTONS, visible=False)
    # a label would lie over the captions
    sheets = [gr.Image(show_label=False, **options) for _ in range(2)]
    results, fill = pictures(site, 'Results')
    seen = gr.State()
    outputs = [status, seen, which, curve, *sheets, *results]

    def update(name: str | None, before: Any) -> list[Any]:
        now = site.look(kind, name)
        if now is None:
            return [gr.skip()] * len(outputs)
        words = as_html(now.lines, now.share)
        if now == before:
            return [words, *[gr.skip()] * (len(outputs) - 1)]
        losses = pd.DataFrame(now.curve.items(), columns=['iteration', 'loss'])
        # who has chosen another run meanwhile keeps it
        chosen = {} if now.name == name else dict(value=now.name)
        return [
            words,
            now,
            gr.update(choices=now.names, **chosen),
            gr.update(value=losses, visible=len(now.curve) > 1),
            *(
                gr.update(value=file and shown(file)[0], visible=bool(file))
                for file in [*now.sheets, None, None][:2]
            ),
            *fill(site.run(now.name), now.results, now.sheets, now.done),
        ]

    for event in (view.beat.change, which.input):
        on(event, update, [which, seen], outputs, quiet=True)
    for button, act in ((stop, site.jobs.stop), (go_on, site.jobs.add)):
        on(button.click, lambda name, act=act: act(site.run(name)), which)
    return which


def draw_panel(site: Site, which: Any, kind: str = '', **more: Any) -> None:
    """Texts, sliders, and what is drawn by them.

    Args:
        site: The site.
        which: The box that says which run.
        kind: Of all its runs; '' for any.
        **more: What else says how to draw, see :meth:`Site.draw`. Where a
            slider is let go, it is drawn again.
    """
    has_strength = kind in ('', requests.PERSONALISED)
    has_steps = kind != requests.WORDS  # which takes those of its inversion
    texts = gr.Textbox(label='Texts, a picture on each line', lines=2)
    with gr.Row():
        options = dict(
            strength=gr.Slider(
                0, 1.5, 0.8, step=0.05, label='Strength', visible=has_strength
            ),
            guidance_scale=gr.Slider(
                0, 20, 0, step=0.5, label='Guidance (0: own)'
            ),
            seed=count('Seed', 1, 10_000),
            num_inference_steps=count(
                STEPS, site.steps, 100, visible=has_steps
            ),
            **more,
        )
    button = gr.Button('Draw')
    drawn, fill = pictures(site, 'Drawn')

    def draw(name: str, prompts: str, *values: Any) -> Any:
        chosen = dict(zip(options, values, strict=True))
        return fill(*site.draw(name, prompts, **chosen))

    inputs = [which, texts, *options.values()]
    sliders = [each for each in more.values() if isinstance(each, gr.Slider)]
    for event in [button.click, *(each.release for each in sliders)]:
        on(event, draw, inputs, drawn)
