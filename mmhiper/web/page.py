"""The page: its views, and what their buttons do."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from mmhiper.io import TOKEN_FORMATS
from mmhiper.studio import requests
from mmhiper.studio.runs import Run, list_runs
from mmhiper.studio.studio import OWN, export, shown
from mmhiper.utils.shipped import shipped
from mmhiper.utils.upright import load_upright_image
from mmhiper.web import uploads
from mmhiper.web.parts import (
    GALLERY,
    Site,
    View,
    draw_panel,
    on,
    painted,
    photo,
    run_panel,
    steps_of,
)

_SECONDS = 2.0  # between two looks at what is new
_EXAMPLE = (
    'a standing dog on the grass',
    'a sitting dog on the grass\na standing dog in the snow',
)
_CROPS = [
    ('the square in the middle', 'center'),
    ('what is painted', 'subject'),
    ('all of it', 'none'),
]


def build_page(site: Site) -> gr.Blocks:
    """The page with its views."""
    views = {
        'Personalise and edit': _personalise,
        'Learn a word': _learn_word,
        'Edit a picture by words': _edit_words,
        'Gallery': _gallery,
    }
    with gr.Blocks(title='mmhiper', analytics_enabled=False) as page:
        gr.Markdown('# mmhiper\nPersonalise a picture, then edit it by text.')
        line = gr.HTML(elem_id='line')
        beat = gr.State('')
        for title, build in views.items():
            with gr.Tab(title):
                build(View(site, page, beat))
        for event in (gr.Timer(_SECONDS).tick, page.load):
            on(event, site.now, None, [line, beat], quiet=True)
    return page


def _personalise(view: View) -> None:
    with gr.Row():
        with gr.Column():
            picture = photo()
            example = gr.Button('Try it with the example, a drawn dog')
        with gr.Column():
            source = gr.Textbox(label='What it shows')
            targets = gr.Textbox(
                label='What to make of it, an edit on each line', lines=3
            )
            crop = gr.Radio(
                _CROPS,
                value='center',
                label='What is learned (paint over it to learn it alone)',
            )
            with gr.Accordion('More', open=False):
                iterations = _iterations(view.site)
                steps = steps_of(view.site)
            start = gr.Button('Personalise and edit', variant='primary')

    def take_example() -> Any:
        return painted(load_upright_image(shipped('data/dog.png'))), *_EXAMPLE

    def ask(root: Any, given: Any, *values: Any, **options: Any) -> Run:
        picture, mask = uploads.split_painted(given)
        return requests.personalise(root, picture, mask, *values, **options)

    on(example.click, take_example, None, [picture, source, targets])
    fields = [picture, source, targets, crop, iterations, steps]
    _learn(view, requests.PERSONALISED, start, fields, ask)


def _learn_word(view: View) -> None:
    with gr.Row():
        with gr.Column():
            photos = gr.File(
                label='Photos of one thing, or of one style (3 to 7 are good)',
                file_count='multiple',
                type='filepath',
            )
        with gr.Column():
            word = gr.Textbox(label='A name for it', value='<my-thing>')
            initialiser = gr.Textbox(
                label='A word for what it is, where the learning starts'
            )
            said = gr.HTML()
            is_style = gr.Checkbox(label='It is a style, not a thing')
            with gr.Accordion('More', open=False):
                iterations = _iterations(view.site)
            start = gr.Button('Learn the word', variant='primary')
    studio = view.site.studio

    def say(*texts: str) -> str:
        return html.escape(studio.say_word(*texts))

    def ask(root: Any, files: Any, *values: Any, **options: Any) -> Run:
        pictures = uploads.read_uploads(files)
        studio.check_word(values[0], values[1])
        return requests.learn_word(root, pictures, *values, **options)

    for box in (word, initialiser):
        on(box.change, say, [word, initialiser], said, quiet=True)
    fields = [photos, word, initialiser, is_style, iterations]
    _learn(view, requests.WORD, start, fields, ask)


def _edit_words(view: View) -> None:
    with gr.Row():
        with gr.Column():
            picture = photo()
        with gr.Column():
            source = gr.Textbox(label='What it shows')
            targets = gr.Textbox(
                label='The same with other words, an edit on each line',
                lines=3,
            )
            baselines = gr.CheckboxGroup(
                list(requests.BASELINES), label='Beside StyleDiffusion'
            )
            with gr.Accordion('More', open=False):
                inner = gr.Slider(1, 100, 20, step=1, label='Inner steps')
            start = gr.Button('Invert and edit', variant='primary')

    def ask(root: Any, given: Any, *values: Any, **options: Any) -> Run:
        picture, _ = uploads.split_painted(given)
        return requests.edit_words(root, picture, *values, **options)

    fields = [picture, source, targets, baselines, inner]
    _learn(view, requests.WORDS, start, fields, ask)


def _learn(
    view: View, kind: str, start: Any, fields: Sequence[Any], ask: Callable
) -> None:
    """What follows a form: its button, what is learned, and drawing again.

    Args:
        view: The view.
        kind: Of the runs that it shows.
        start: The button.
        fields: The form.
        ask: Makes a run of a folder and the values of the form.
    """
    which = run_panel(view, kind)
    gr.Markdown('### Draw again, without learning again')
    draw_panel(view.site, which)

    def begin(*values: Any) -> Any:
        site = view.site
        return site.begin(ask(site.root, *values, pretrained=site.pretrained))

    on(start.click, begin, list(fields), which)


def _iterations(site: Site) -> Any:
    return gr.Slider(1, 5000, site.iterations, step=1, label='Iterations')


def _gallery(view: View) -> None:
    site = view.site
    all_runs = gr.Gallery(
        label='Work dirs with their last previews; choose one',
        allow_preview=False,
        elem_id='work-dirs',
        **GALLERY,
    )
    refresh = gr.Button('Look again')
    which = gr.Textbox(label='Run', interactive=False, elem_id='chosen')
    snapshot = gr.Slider(0, 1, 1, step=1, label='Snapshot, by iteration')
    others = gr.Dropdown(
        [], label='More words, of other runs', multiselect=True
    )
    draw_panel(site, which, snapshot, others)
    with gr.Row():
        form = gr.Dropdown([OWN, *TOKEN_FORMATS], value=OWN, label='Format')
        button = gr.Button('Export')
        file = gr.File(label='Exported', visible=False)

    def look_again() -> Any:
        pairs = [
            (shown(file)[0], run.name)
            for run in list_runs(site.root)
            if (file := next(iter(run.pictures()), run.preview()))
        ]
        words = [r.name for r in list_runs(site.root, requests.WORD)]
        return pairs, gr.update(choices=words)

    def choose(event: gr.SelectData) -> Any:
        run = site.run(event.value['caption'])
        last = max(run.snapshots(), default=1)
        return run.name, gr.update(maximum=last, value=last)

    def convert(name: str, format: str) -> Any:
        path = export(site.run(name), format, uploads.upload_folder())
        return gr.update(value=path, visible=True)

    for event in (view.page.load, refresh.click):
        on(event, look_again, None, [all_runs, others])
    on(all_runs.select, choose, None, [which, snapshot])
    on(button.click, convert, [which, form], file)
