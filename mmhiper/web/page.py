"""The page: its views, and what their buttons do."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mmhiper.io import TOKEN_FORMATS, read_picture_record
from mmhiper.jobs import DONE, Jobs
from mmhiper.runs import Run, find_run, list_runs
from mmhiper.utils.errors import UserError
from mmhiper.utils.shipped import shipped
from mmhiper.utils.upright import load_upright_image
from mmhiper.web import forms, look, uploads
from mmhiper.web.drawing import OWN, Studio, downloads, export, shown

_SECONDS = 1.5  # between two looks at what is learned
_BUTTONS: Any = ['download', 'fullscreen']  # Gradio's third one shares
_EXAMPLE = (
    'a standing dog on the grass',
    'a sitting dog on the grass\na standing dog in the snow',
)


@dataclass
class Site:
    """What all windows share."""

    root: Path
    pretrained: str | None = None
    iterations: int = 1200
    steps: int = 50

    def __post_init__(self) -> None:
        self.studio = Studio(self.pretrained)
        self.jobs = Jobs(self.studio.finish)

    def run(self, name: Any) -> Run:
        """The run of a name, see `find_run`."""
        return find_run(self.root, name)


def _told(function: Callable) -> Callable:
    """Shows a user's mistake as a message on the page."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except (UserError, OSError) as error:
            raise gr.Error(
                html.escape(str(error)), duration=None, print_exception=False
            ) from None

    return call


def _on(
    event: Callable,
    function: Callable,
    inputs: Any = None,
    outputs: Any = None,
    quiet: bool = False,
    **options: Any,
) -> None:
    """Has something happen at an event, here alone and not by an API."""
    if quiet:  # what is not waited for, of which the latest counts
        options |= dict(show_progress='hidden', trigger_mode='always_last')
    event(
        _told(function), inputs, outputs, api_visibility='private', **options
    )


def build_page(site: Site) -> gr.Blocks:
    """The page with its views."""
    with gr.Blocks(title='mmhiper', analytics_enabled=False) as page:
        gr.Markdown('# mmhiper\nPersonalise a picture, then edit it by text.')
        line = gr.HTML(elem_id='line')
        timer = gr.Timer(_SECONDS)

        def show() -> str:
            runs = site.jobs.line()
            return look.show_line(
                runs, site.jobs.state(runs[0]) if runs else ''
            )

        for event in (timer.tick, page.load):
            _on(event, show, None, line, quiet=True)
        views = {
            'Personalise and edit': _personalise,
            'Learn a word': _learn_word,
            'Edit a picture by words': _edit_words,
            'Gallery': _gallery,
        }
        for title, view in views.items():
            with gr.Tab(title):
                view(site, page, timer)
    return page


# --------------------------------------------------------------------- views
def _personalise(site: Site, page: gr.Blocks, timer: gr.Timer) -> None:
    with gr.Row():
        with gr.Column():
            picture = _photo()
            example = gr.Button('Try it with the example, a drawn dog')
        with gr.Column():
            source = gr.Textbox(label='What it shows')
            targets = gr.Textbox(
                label='What to make of it, an edit on each line', lines=3
            )
            crop = gr.Radio(
                [
                    ('the square in the middle', 'center'),
                    ('what is painted', 'subject'),
                    ('all of it', 'none'),
                ],
                value='center',
                label='What is learned (paint over it to learn it alone)',
            )
            with gr.Accordion('More', open=False):
                iterations = _iterations(site.iterations)
                steps = _steps(site)
            start = gr.Button('Personalise and edit', variant='primary')
    which = _run_panel(site, page, timer, forms.PERSONALISED)
    gr.Markdown('### Draw again, without learning again')
    _draw_panel(site, which)

    def begin(painted: Any, *values: Any) -> Any:
        picture, mask = uploads.split_painted(painted)
        run = forms.personalise(
            site.root, picture, mask, *values, pretrained=site.pretrained
        )
        return _begun(site, run)

    inputs = [picture, source, targets, crop, iterations, steps]
    _on(start.click, begin, inputs, which)
    _on(
        example.click,
        lambda: (
            _painted(load_upright_image(shipped('data/dog.png'))),
            *_EXAMPLE,
        ),
        None,
        [picture, source, targets],
    )


def _learn_word(site: Site, page: gr.Blocks, timer: gr.Timer) -> None:
    with gr.Row():
        with gr.Column():
            photos = gr.File(
                label='Photos of one thing, or of one style (3 to 7 are good)',
                file_count='multiple',
                type='filepath',
            )
        with gr.Column():
            word = gr.Textbox(label='A name for it', value='<my-thing>')
            start_word = gr.Textbox(
                label='A word for what it is, where the learning starts'
            )
            said = gr.HTML()
            is_style = gr.Checkbox(label='It is a style, not a thing')
            with gr.Accordion('More', open=False):
                iterations = _iterations(site.iterations)
            start = gr.Button('Learn the word', variant='primary')
    which = _run_panel(site, page, timer, forms.WORD)
    gr.Markdown('### Draw with the word')
    _draw_panel(site, which)

    def begin(files: Any, *values: Any) -> Any:
        pictures = uploads.read_uploads(files)
        site.studio.check_word(values[0], values[1])
        run = forms.learn_word(
            site.root, pictures, *values, pretrained=site.pretrained
        )
        return _begun(site, run)

    for box in (word, start_word):
        _on(
            box.change,
            lambda *texts: html.escape(site.studio.say_word(*texts)),
            [word, start_word],
            said,
            quiet=True,
        )
    inputs = [photos, word, start_word, is_style, iterations]
    _on(start.click, begin, inputs, which)


def _edit_words(site: Site, page: gr.Blocks, timer: gr.Timer) -> None:
    with gr.Row():
        with gr.Column():
            picture = _photo()
        with gr.Column():
            source = gr.Textbox(label='What it shows')
            targets = gr.Textbox(
                label='The same with other words, an edit on each line',
                lines=3,
            )
            baselines = gr.CheckboxGroup(
                list(forms.BASELINES), label='Beside StyleDiffusion'
            )
            with gr.Accordion('More', open=False):
                inner = gr.Slider(1, 100, 20, step=1, label='Inner steps')
            start = gr.Button('Invert and edit', variant='primary')
    which = _run_panel(site, page, timer, forms.WORDS)
    gr.Markdown('### Other words')
    _draw_panel(site, which)

    def begin(painted: Any, *values: Any) -> Any:
        picture, _ = uploads.split_painted(painted)
        run = forms.edit_words(
            site.root, picture, *values, pretrained=site.pretrained
        )
        return _begun(site, run)

    inputs = [picture, source, targets, baselines, inner]
    _on(start.click, begin, inputs, which)


def _gallery(site: Site, page: gr.Blocks, timer: gr.Timer) -> None:
    all_runs = gr.Gallery(
        label='Work dirs with their last previews; choose one',
        columns=4,
        height='auto',
        object_fit='contain',
        allow_preview=False,
        format='png',
        buttons=_BUTTONS,
        elem_id='work-dirs',
        elem_classes='pictures',
    )
    refresh = gr.Button('Look again')
    which = gr.Textbox(label='Run', interactive=False, elem_id='chosen')
    snapshot = gr.Slider(0, 1, 1, step=1, label='Snapshot, by iteration')
    others = gr.Dropdown(
        [], label='More words, of other runs', multiselect=True
    )
    _draw_panel(site, which, snapshot, others)
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
        words = [r.name for r in list_runs(site.root, forms.WORD)]
        return pairs, gr.update(choices=words)

    def choose(event: gr.SelectData) -> Any:
        run = site.run(event.value['caption'])
        last = max(run.snapshots(), default=1)
        return run.name, gr.update(maximum=last, value=last)

    def convert(name: str, format: str) -> Any:
        return gr.update(value=export(site.run(name), format), visible=True)

    for event in (page.load, refresh.click):
        _on(event, look_again, None, [all_runs, others])
    _on(all_runs.select, choose, None, [which, snapshot])
    _on(button.click, convert, [which, form], file)


# ------------------------------------------------------------- parts of views
def _photo() -> Any:
    """A place to drop a photo, and one to crop it and to paint on it."""
    photo = gr.File(
        label='Photo',
        type='filepath',
        height=130,
    )
    picture = gr.ImageEditor(
        label='Crop, paint',
        type='pil',
        format='png',
        sources=(),
        transforms=('crop',),
        layers=False,
        buttons=_BUTTONS,
        brush=gr.Brush(colors=['#ff5500'], color_mode='fixed'),
        height=420,
    )

    def read(path: str | None) -> Any:
        if path is None:
            return None
        image, remarks = uploads.read_upload(path)
        for remark in remarks:
            gr.Warning(html.escape(remark))
        return _painted(image)

    _on(photo.change, read, photo, picture)
    return picture


def _painted(image: Any) -> dict[str, Any]:
    return dict(background=image, layers=[], composite=image)


def _iterations(value: int) -> Any:
    return gr.Slider(1, 5000, value, step=1, label='Iterations')


def _steps(site: Site) -> Any:
    return gr.Slider(1, 100, site.steps, step=1, label='Steps of a picture')


def _begun(site: Site, run: Run) -> Any:
    site.jobs.add(run)
    return gr.update(value=run.name)


def _pictures(label: str) -> tuple[list[Any], Callable]:
    """Pictures, what made the chosen one, and downloads; and what fills it."""
    pictures = gr.Gallery(
        label=label,
        columns=4,
        height='auto',
        object_fit='contain',
        format='png',
        buttons=_BUTTONS,
        elem_classes='pictures',
        visible=False,
    )
    record = gr.JSON(label='What made this picture', visible=False)
    files = gr.File(label='Downloads', file_count='multiple', visible=False)
    paths = gr.State([])

    def tell(made: list[Path], event: gr.SelectData) -> Any:
        record = read_picture_record(made[event.index])
        return gr.update(value=record, visible=True)

    def fill(run: Run, made: list[Path]) -> list[Any]:
        fetch = downloads(run, made) if made else None
        return [
            gr.update(value=list(map(shown, made)), visible=bool(made)),
            gr.update(value=fetch, visible=bool(made)),
            made,
            gr.update(visible=False),
        ]

    _on(pictures.select, tell, paths, record)
    return [pictures, files, paths, record], fill


def _run_panel(site: Site, page: gr.Blocks, timer: gr.Timer, kind: str) -> Any:
    """What is learned, and what came of it; the box that says which run."""
    with gr.Row():
        which = gr.Dropdown(
            [], label='Run', allow_custom_value=True, scale=4, min_width=280
        )
        stop = gr.Button('Stop', min_width=100)
        go_on = gr.Button('Go on', min_width=100)
    status = gr.HTML()
    sheet = gr.Image(
        interactive=False,
        show_label=False,  # it would lie over the captions
        format='png',
        buttons=_BUTTONS,
        visible=False,
    )
    results, fill = _pictures('Results')
    seen = gr.State()

    def update(name: str | None, before: Any) -> Any:
        runs = list_runs(site.root, kind)
        run = next((run for run in runs if run.name == name), None)
        run = run or next(iter(runs), None)
        if run is None:
            return [gr.skip()] * 8
        state = site.jobs.state(run)
        words = look.show_run(run, state, run.progress())
        names = [run.name for run in runs]
        made = run.pictures() if state == DONE else []
        file = made[0] if made else run.preview()
        now = (names, run.name, file, made)
        if now == before:
            return [gr.skip(), words, *[gr.skip()] * 6]
        return [
            gr.update(choices=names, value=run.name),
            words,
            gr.update(
                value=shown(file)[0] if file else None,
                visible=file is not None,
            ),
            now,
            *fill(run, made[1:]),
        ]

    for event in (timer.tick, page.load, which.input):
        outputs = [which, status, sheet, seen, *results]
        _on(event, update, [which, seen], outputs, quiet=True)
    for button, act in ((stop, site.jobs.stop), (go_on, site.jobs.add)):
        _on(button.click, lambda name, act=act: act(site.run(name)), which)
    return which


def _draw_panel(
    site: Site, which: Any, snapshot: Any = None, others: Any = None
) -> None:
    """Texts, sliders, and what is drawn by them."""
    prompts = gr.Textbox(label='Texts, a picture on each line', lines=2)
    with gr.Row():
        strength = gr.Slider(0, 1.5, 0.8, step=0.05, label='Strength')
        guidance = gr.Slider(0, 20, 0, step=0.5, label='Guidance (0: own)')
        seed = gr.Slider(1, 10_000, 1, step=1, label='Seed')
        steps = _steps(site)
    button = gr.Button('Draw')
    drawn, fill = _pictures('Drawn')

    def draw(
        name: str,
        texts: str,
        strength: float,
        guidance: float,
        seed: int,
        steps: int,
        iteration: int | None = None,
        words: list[str] | None = None,
    ) -> Any:
        run = site.run(name)
        checkpoint = run.checkpoint()
        if iteration is not None and (known := run.snapshots()):
            checkpoint = known[min(known, key=lambda k: abs(k - iteration))]
        options: dict[str, Any] = dict(
            strength=strength, num_inference_steps=int(steps), seed=int(seed)
        )
        if guidance:
            options['guidance_scale'] = guidance
        more = [
            site.run(word).checkpoint().with_suffix('.safetensors')
            for word in words or []
        ]
        prompts = forms.lines_of(texts)
        made = site.studio.draw(run, prompts, checkpoint, more, **options)
        return fill(run, made)

    inputs = [which, prompts, strength, guidance, seed, steps]
    inputs += [each for each in (snapshot, others) if each is not None]
    for event in [button.click, *([snapshot.release] if snapshot else [])]:
        _on(event, draw, inputs, drawn, concurrency_id='draw')
