"""The page: its views, and what their buttons do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from mmhiper.io import TOKEN_FORMATS
from mmhiper.studio import requests
from mmhiper.studio.runs import list_runs
from mmhiper.studio.site import Site
from mmhiper.studio.studio import OWN, export, shown
from mmhiper.studio.uploads import read_uploads
from mmhiper.utils.shipped import shipped
from mmhiper.utils.upright import load_upright_image
from mmhiper.web.look import as_html
from mmhiper.web.parts import (
    GALLERY,
    STEPS,
    View,
    count,
    draw_panel,
    on,
    photo,
    read_photo,
    run_panel,
)

_SECONDS = 2.0  # between two looks at what is new


def build_page(site: Site) -> gr.Blocks:
    """The page with its views."""
    views = {
        'Personalise and edit': _personalise,
        'Learn a word': _learn_word,
        'Edit a picture by words': _edit_words,
        'Gallery': _gallery,
    }
    with gr.Blocks(title='mmhiper') as page:
        gr.Markdown('# mmhiper\nPersonalise a picture, then edit it by text.')
        line = gr.HTML(elem_id='line', elem_classes='line')
        beat = gr.State('')
        for title, build in views.items():
            with gr.Tab(title) as tab:
                build(View(site, tab, beat))

        def look() -> Any:
            words, mark = site.now()
            return as_html([words]), mark

        for event in (gr.Timer(_SECONDS).tick, page.load):
            on(event, look, None, [line, beat], quiet=True)
    return page


def _personalise(view: View) -> None:
    with gr.Row():
        with gr.Column():
            picture = photo(view.site)
            example = gr.Button('Try it with the example, a drawn dog')
        with gr.Column():
            source, targets = _texts('What to make of it')
            crop = gr.Radio(
                list(requests.CROPS.items()),
                value='center',
                label='What is learned (paint over it to learn it alone)',
            )
            with gr.Accordion('More', open=False):
                iterations = count('Iterations', view.site.iterations, 5000)
                steps = count(STEPS, view.site.steps, 100)
            start = gr.Button('Personalise and edit', variant='primary')

    def take_example() -> Any:
        file, *texts = requests.EXAMPLE
        return load_upright_image(shipped(file)), *texts

    on(example.click, take_example, None, [picture, source, targets])
    fields = [picture, source, targets, crop, iterations, steps]
    _learn(view, requests.PERSONALISED, start, fields, read_photo)


def _learn_word(view: View) -> None:
    site = view.site
    with gr.Row():
        with gr.Column():
            photos = gr.File(
                label='Photos of one thing, or of one style (3 to 7 are good)',
                file_count='multiple',
            )
        with gr.Column():
            word = gr.Textbox(label='A name for it', value='<my-thing>')
            initialiser = gr.Textbox(
                label='A word for what it is, where the learning starts'
            )
            said = gr.HTML(elem_classes='line')
            is_style = gr.Checkbox(label='It is a style, not a thing')
            with gr.Accordion('More', open=False):
                iterations = count('Iterations', site.iterations, 5000)
            start = gr.Button('Learn the word', variant='primary')

    def say(*texts: str) -> str:
        return as_html([site.studio.say_word(*texts)])

    def read(files: Any) -> Any:
        return [read_uploads(files, site.uploads)]

    for box in (word, initialiser):
        on(box.change, say, [word, initialiser], said, quiet=True)
    fields = [photos, word, initialiser, is_style, iterations]
    _learn(view, requests.WORD, start, fields, read)


def _edit_words(view: View) -> None:
    with gr.Row():
        with gr.Column():
            picture = photo(view.site)
        with gr.Column():
            source, targets = _texts('The same with other words')
            baselines = gr.CheckboxGroup(
                list(requests.BASELINES), label='Beside StyleDiffusion'
            )
            with gr.Accordion('More', open=False):
                inner = count('Inner steps', 20, 100)
            start = gr.Button('Invert and edit', variant='primary')

    def read(given: Any) -> Any:
        return read_photo(given)[:1]

    fields = [picture, source, targets, baselines, inner]
    _learn(view, requests.WORDS, start, fields, read)


def _texts(label: str) -> tuple[Any, Any]:
    source = gr.Textbox(label='What it shows')
    edits = gr.Textbox(label=f'{label}, an edit on each line', lines=3)
    return source, edits


def _learn(
    view: View, kind: str, start: Any, fields: Sequence[Any], read: Callable
) -> None:
    """What follows a form, whose first field `read` makes pictures of."""
    which = run_panel(view, kind)
    gr.Markdown('### Draw again, without learning again')
    draw_panel(view.site, which, kind)

    def begin(given: Any, *values: Any) -> Any:
        return view.site.begin(kind, *read(given), *values).name

    on(start.click, begin, list(fields), which)


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
    draw_panel(site, which, iteration=snapshot, words=others)
    with gr.Row():
        form = gr.Dropdown([OWN, *TOKEN_FORMATS], value=OWN, label='Format')
        button = gr.Button('Export')
        file = gr.File(label='Exported', visible=False)

    def look_again() -> Any:
        pairs = [(shown(file)[0], name) for file, name in site.overview()]
        words = [run.name for run in list_runs(site.root, requests.WORD)]
        return pairs, gr.update(choices=words)

    def choose(event: gr.SelectData) -> Any:
        run = site.run(event.value['caption'])
        last = max(run.snapshots(), default=1)
        return run.name, gr.update(maximum=last, value=last)

    def convert(name: str, format: str) -> Any:
        path = export(site.run(name), format, site.uploads)
        return gr.update(value=path, visible=True)

    for event in (view.tab.select, refresh.click):
        on(event, look_again, None, [all_runs, others])
    on(all_runs.select, choose, None, [which, snapshot])
    on(button.click, convert, [which, form], file)
