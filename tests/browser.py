"""The page of ``mmhiper web`` in a real browser, for tests and for the docs.

    python tests/browser.py --iters 150 --out-dir FOLDER

draws those of the documents (see tools/draw_docs.py). It takes the Chromium of
the system (``apt-get install chromium``), or what MMHIPER_CHROMIUM names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runs import REPO, free_port

DEADLINE = 600_000  # milliseconds, far more than anything here takes
_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
_WIDE, _NARROW = (1280, 900), (420, 900)


def chromium() -> str | None:
    """The browser of this system, if it has one."""
    named = os.environ.get('MMHIPER_CHROMIUM')
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


def why_not() -> str:
    """Why there is no page to look at; '' if there is one."""
    for name in ('gradio', 'playwright'):
        try:
            __import__(name)
        except ImportError:
            return f'{name} is not installed: pip install mmhiper[web_tests]'
    return '' if chromium() else 'no Chromium on this system'


@contextmanager
def serving(root: Path, *options: object) -> Iterator[str]:
    """Starts ``mmhiper web``; its address."""
    port = free_port()
    command = [sys.executable, '-m', 'mmhiper', 'web', '--port', port]
    command += ['--work-dirs', str(root), *map(str, options)]
    env = {**os.environ, 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(command, env=env, cwd=root)
    address = f'http://127.0.0.1:{port}/'
    try:
        end = time.monotonic() + DEADLINE / 1000
        while True:
            assert process.poll() is None and time.monotonic() < end
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(DEADLINE / 1000)


@contextmanager
def browsing() -> Iterator[Any]:
    """Starts a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=['--no-sandbox']
        )
        yield browser
        browser.close()


def open_window(
    browser: Any, address: str, size: tuple[int, int] = _WIDE, **options: Any
) -> Any:
    """A window of a person of its own, with the page loaded."""
    width, height = size
    context = browser.new_context(
        viewport=dict(width=width, height=height), **options
    )
    context.set_default_timeout(DEADLINE)
    window = context.new_page()
    window.requests = []
    window.on('request', lambda each: window.requests.append(each.url))
    window.goto(address)
    window.locator('#line p').wait_for()
    return window


def go_to(window: Any, view: str) -> None:
    """Opens a view."""
    tab = window.get_by_role('tab', name=view)
    if not tab.is_visible():  # in a narrow window
        window.locator('.overflow-menu button').first.click()
        tab = window.get_by_role('button', name=view, exact=True)
    tab.first.click()


def take_example(window: Any) -> None:
    """The click that brings the drawn dog."""
    window.get_by_role('button', name='Try it with the example').click()
    window.wait_for_function(
        '() => [...document.querySelectorAll("textarea")]'
        '.some(each => each.value.includes("a sitting dog"))'
    )
    window.wait_for_timeout(1500)  # the editor draws it


def shown_in(window: Any, selector: str) -> Any:
    """What can be seen of a selector, in the view that is open."""
    return window.locator(selector).locator('visible=true')


def fill(window: Any, label: str, text: str) -> None:
    """Types into a box of the view that is open."""
    window.get_by_label(label).locator('visible=true').fill(text)


def give(window: Any, *photos: Path) -> None:
    """Drops photos on the first place for them in the open view."""
    view = shown_in(window, '[role=tabpanel]')
    view.locator('input[type=file]').first.set_input_files(photos)
    shown_in(window, '.file-preview').first.wait_for()


def upload(window: Any, photo: Path) -> None:
    """Drops a photo, and waits until it can be painted on."""
    give(window, photo)
    # it can be cropped
    shown_in(window, 'button[aria-label="Image"]').wait_for()
    window.wait_for_timeout(1500)  # the editor draws it


def paint(window: Any, side: int, *points: tuple[float, float]) -> None:
    """A stroke on the photo in the editor.

    Args:
        side: Of the photo, which is a square, in pixels.
        points: Where the stroke goes, (x, y) in [0, 1].
    """
    box = shown_in(window, '.pixi-target canvas').bounding_box()
    zoom = shown_in(window, '.zoom-number').text_content()
    shown = side * int(zoom.strip(' %')) / 100

    def go(x: float, y: float) -> None:
        window.mouse.move(
            box['x'] + box['width'] / 2 + (x - 0.5) * shown,
            box['y'] + box['height'] / 2 + (y - 0.5) * shown,
            steps=8,
        )

    go(*points[0])
    window.mouse.down()
    for point in points[1:]:
        go(*point)
    window.mouse.up()


def choose_run(window: Any, name: str) -> None:
    """Clicks a run in the gallery."""
    window.get_by_role('button', name='Look again').click()
    window.locator('#work-dirs button', has_text=name).first.click()
    window.wait_for_function(
        '(name) => document.querySelector("#chosen textarea, #chosen input")'
        '.value.startsWith(name)',
        arg=name,
    )


def drawn(window: Any, run: Path, number: int) -> dict[str, Any]:
    """Waits for what was drawn into a run; the record of its last picture."""
    file = run / 'drawn' / f'{number:03d}' / 'pictures.json'
    for _ in range(DEADLINE // 500):
        if file.is_file():
            return json.loads(file.read_text())[-1]
        window.wait_for_timeout(500)
    raise AssertionError(f'{file} was never drawn')


def set_number(window: Any, label: str, value: float) -> None:
    """Types a number beside a slider of what can be seen."""
    box = window.get_by_label(f'number input for {label}')
    box.locator('visible=true').first.fill(str(value))
    box.locator('visible=true').first.press('Tab')


def start(window: Any, what: str = 'Iterations', number: int = 0) -> None:
    """The button of a form; a number under *More* can be set before."""
    if number:
        shown_in(window, 'button.label-wrap:has-text("More")').click()
        set_number(window, what, number)
    shown_in(window, 'button.primary').click()


def wait_for_state(window: Any, words: str) -> None:
    """Waits for what the panel of a run says."""
    window.locator('.run p').filter(has_text=words).locator(
        'visible=true'
    ).first.wait_for()


# ------------------------------------------------------------ the documents
def shoot(window: Any, file: Path) -> None:
    """A picture of the whole page, when all of it is there."""
    window.wait_for_timeout(4000)
    window.screenshot(path=file, full_page=True)


def personalise(window: Any) -> None:
    """The first view, with the dog that is one click away."""
    take_example(window)
    start(window)
    wait_for_state(window, 'done')


def learn_word(window: Any) -> None:
    """The second view, with the toy of the project."""
    go_to(window, 'Learn a word')
    give(window, *sorted((REPO / 'data' / 'cat_toy').glob('*.jpeg')))
    fill(window, 'A name for it', '<cat-toy>')
    fill(window, 'A word for what it is, where the learning starts', 'toy')
    window.get_by_text('one word to the model').wait_for()
    start(window)
    wait_for_state(window, 'cat-toy: done')


def edit_words(window: Any) -> None:
    """The third view, with a picture of the project, and one baseline."""
    go_to(window, 'Edit a picture by words')
    upload(window, REPO / 'data' / 'style_diffusion' / 'brown_dog.png')
    fill(window, 'What it shows', 'a brown dog standing on the grass')
    edits = ('a white dog', 'a brown cat')
    fill(
        window,
        'The same with other words, an edit on each line',
        '\n'.join(f'{each} standing on the grass' for each in edits),
    )
    window.get_by_label('NullTextInversion').check()
    start(window)
    wait_for_state(window, 'done')


def draw_with(window: Any, run: str, text: str) -> None:
    """The gallery, where one run draws once more."""
    go_to(window, 'Gallery')
    choose_run(window, run)
    fill(window, 'Texts, a picture on each line', text)
    shown_in(window, 'button:text-is("Draw")').click()
    window.get_by_text(text).locator('visible=true').last.wait_for()


def main() -> None:
    """Draws the pictures of the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out-dir', type=Path, required=True)
    parser.add_argument('--iters', type=int, default=1200)
    args = parser.parse_args()
    made = args.out_dir
    options = ('--pretrained', 'mini-sd', '--iters', args.iters)
    with (
        tempfile.TemporaryDirectory() as root,
        browsing() as browser,
        serving(Path(root), *options) as address,
    ):
        window = open_window(browser, address)
        window.set_default_timeout(3 * DEADLINE)
        personalise(window)
        shoot(window, made / 'personalise.png')
        dark = open_window(browser, address, _NARROW, color_scheme='dark')
        shoot(dark, made / 'narrow_dark.png')
        learn_word(window)
        shoot(window, made / 'learn_word.png')
        edit_words(window)
        shoot(window, made / 'edit_words.png')
        draw_with(window, 'a standing dog', 'a dog on the beach')
        shoot(window, made / 'gallery.png')


if __name__ == '__main__':
    main()
