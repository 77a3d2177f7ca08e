"""Parts of the page that several views have."""

from __future__ import annotations

import functools
import html
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from mmhiper.io import read_picture_record
from mmhiper.studio import requests
from mmhiper.studio.jobs import DONE, Jobs
from mmhiper.studio.runs import Run, find_run, list_runs
from mmhiper.studio.studio import Studio, downloads, shown
from mmhiper.utils.errors import UserError
from mmhiper.web import look, uploads

BUTTONS: Any = ['download', 'fullscreen']  # Gradio's third one shares
GALLERY: dict[str, Any] = dict(
    columns=4,
    height='auto',
    object_fit='contain',
    format='png',
    buttons=BUTTONS,
    elem_classes='pictures',
)
TEXTS = 'Texts, a picture on each line'
_AGAIN = 15.0  # seconds


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

    def begin(self, run: Run) -> Any:
        """Puts a new run in the line, and shows it."""
        self.jobs.add(run)
        return gr.update(value=run.name)

    def now(self) -> tuple[str, str]:
        """Who is at work, in words; and a text that changes if anything does.

        It costs little, so every window asks for it every other second. It
        changes now and then without a reason too: what a window has missed,
        it sees then.
        """
        line = self.jobs.line()
        state = self.jobs.state(line[0]) if line else ''
        mark = [self.root.stat().st_mtime_ns] if self.root.is_dir() else []
        mark += [run.changed() for run in line[:1]]
        mark += [int(time.monotonic() / _AGAIN)]
        return look.show_line(line, state), f'{mark} {state} {line}'


@dataclass
class View:
    """A tab of a window."""

    site: Site
    page: gr.Blocks
    beat: gr.State  # changes when there is something new to show


def on(
    event: Callable,
    function: Callable,
    inputs: Any = None,
    outputs: Any = None,
    quiet: bool = False,
    **options: Any,
) -> None:
    """Has something happen at an event, here alone and not by an API.

    A user's mistake is shown as a message on the page.

    Args:
        event: Of a component.
        function: What happens, of the values of `inputs`.
        inputs: Components.
        outputs: Those that get what the function returns.
        quiet: Whether nobody waits for it, and the latest counts.
        **options: Of Gradio.
    """

    @functools.wraps(function)
    def told(*args: Any) -> Any:
        try:
            return function(*args)
        except (UserError, OSError) as error:
            raise gr.Error(
                html.escape(str(error)), duration=None, print_exception=False
            ) from None

    if quiet:
        options |= dict(show_progress='hidden', trigger_mode='always_last')
    event(told, inputs, outputs, api_visibility='private', **options)


# ------------------------------------------------------------------- to ask
def photo() -> Any:
    """A place to drop a photo, and one to crop it and to paint on it."""
    file = gr.File(label='Photo', type='filepath', height=130)
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
        image, remarks = uploads.read_upload(path)
        for remark in remarks:
            gr.Warning(html.escape(remark))
        return painted(image)

    on(file.change, read, file, picture)
    return picture


def painted(image: Any) -> dict[str, Any]:
    """A picture with no paint on it, for the editor."""
    return dict(background=image, layers=[], composite=image)


def steps_of(site: Site) -> Any:
    """The slider of the sampling steps."""
    return gr.Slider(1, 100, site.steps, step=1, label='Steps of a picture')


# ------------------------------------------------------------------ to show
def pictures(label: str) -> tuple[list[Any], Callable]:
    """Pictures, what made the chosen one, and downloads.

    Returns:
        The components, and a function of a run and its files that gives them
        their values.
    """
    gallery = gr.Gallery(label=label, visible=False, **GALLERY)
    record = gr.JSON(label='What made this picture', visible=False)
    files = gr.File(label='Downloads', file_count='multiple', visible=False)
    paths = gr.State([])

    def tell(made: list[Path], event: gr.SelectData) -> Any:
        record = read_picture_record(made[event.index])
        return gr.update(value=record, visible=True)

    def fill(run: Run, made: list[Path]) -> list[Any]:
        folder = uploads.upload_folder()
        fetch = downloads(run, made, folder) if made else None
        return [
            gr.update(value=list(map(shown, made)), visible=bool(made)),
            gr.update(value=fetch, visible=bool(made)),
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
    status = gr.HTML()
    sheet = gr.Image(
        interactive=False,
        show_label=False,  # it would lie over the captions
        format='png',
        buttons=BUTTONS,
        visible=False,
    )
    results, fill = pictures('Results')
    seen = gr.State()

    def update(name: str | None, before: Any) -> Any:
        runs = list_runs(site.root, kind)
        # the chosen one; in a new window the one at work, or the newest
        for wanted in (name, *(each.name for each in site.jobs.line()[:1])):
            run = next((each for each in runs if each.name == wanted), None)
            if run is not None:
                break
        else:
            if not runs:
                return [gr.skip()] * 8
            run = runs[0]
        state = site.jobs.state(run)
        words = look.show_run(run, state, run.progress())
        names = [run.name for run in runs]
        made = run.pictures() if state == DONE else []
        file = made[0] if made else run.preview()
        now = (names, run.name, file, made)
        if now == before:  # the words alone are news
            return [gr.skip(), words, *[gr.skip()] * 6]
        picture = shown(file)[0] if file else None
        # who has chosen another run meanwhile keeps it
        chosen = {} if run.name == name else dict(value=run.name)
        return [
            gr.update(choices=names, **chosen),
            words,
            gr.update(value=picture, visible=file is not None),
            now,
            *fill(run, made[1:]),
        ]

    for event in (view.beat.change, view.page.load, which.input):
        outputs = [which, status, sheet, seen, *results]
        on(event, update, [which, seen], outputs, quiet=True)
    for button, act in ((stop, site.jobs.stop), (go_on, site.jobs.add)):
        on(button.click, lambda name, act=act: act(site.run(name)), which)
    return which


def draw_panel(
    site: Site, which: Any, snapshot: Any = None, others: Any = None
) -> None:
    """Texts, sliders, and what is drawn by them.

    Args:
        site: The site.
        which: The box that says which run.
        snapshot: A slider of its iterations.
        others: A box with more runs, whose words are known too.
    """
    prompts = gr.Textbox(label=TEXTS, lines=2)
    with gr.Row():
        strength = gr.Slider(0, 1.5, 0.8, step=0.05, label='Strength')
        guidance = gr.Slider(0, 20, 0, step=0.5, label='Guidance (0: own)')
        seed = gr.Slider(1, 10_000, 1, step=1, label='Seed')
        steps = steps_of(site)
    button = gr.Button('Draw')
    drawn, fill = pictures('Drawn')

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
        options: dict[str, Any] = dict(
            strength=strength, num_inference_steps=int(steps), seed=int(seed)
        )
        if guidance:
            options['guidance_scale'] = guidance
        more = [site.run(word) for word in words or []]
        prompts = requests.lines_of(texts)
        made = site.studio.draw(run, prompts, iteration, more, **options)
        return fill(run, made)

    inputs = [which, prompts, strength, guidance, seed, steps]
    inputs += [each for each in (snapshot, others) if each is not None]
    for event in [button.click, *([snapshot.release] if snapshot else [])]:
        on(event, draw, inputs, drawn, concurrency_id='draw')
