"""The page of ``mmhiper web`` in a real browser, for tests and for the docs.

    python tests/browser.py --iters 150 --out-dir FOLDER

draws those of the documents (see tools/draw_docs.py). It takes the Chromium of
the system (``apt-get install chromium``), or what MMHIPER_CHROMIUM names.
"""

from __future__ import annotations

import argparse
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


def set_number(window: Any, label: str, value: float) -> None:
    """Types a number beside a slider of what can be seen."""
    box = window.get_by_label(f'number input for {label}')
    box.locator('visible=true').first.fill(str(value))
    box.locator('visible=true').first.press('Tab')


def start(window: Any, iterations: int | None = None) -> None:
    """The button of the first view."""
    if iterations is not None:
        more = window.get_by_role('button', name='More').locator(
            'visible=true'
        )
        more.first.click()
        set_number(window, 'Iterations', iterations)
    window.locator('button.primary', has_text='Personalise').click()


def wait_for_state(window: Any, words: str) -> None:
    """Waits for what the panel of a run says."""
    window.locator('.run p').filter(has_text=words).locator(
        'visible=true'
    ).first.wait_for()


def main() -> None:
    """Draws the pictures of the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out-dir', type=Path, required=True)
    parser.add_argument('--iters', type=int, default=1200)
    args = parser.parse_args()
    made, iterations = args.out_dir, args.iters
    with tempfile.TemporaryDirectory() as root, browsing() as browser:
        options = ('--pretrained', 'mini-sd', '--iters', iterations)
        with serving(Path(root), *options) as address:
            window = open_window(browser, address)
            take_example(window)
            start(window)
            window.set_default_timeout(3 * DEADLINE)
            wait_for_state(window, 'done')
            window.wait_for_timeout(4000)
            window.screenshot(path=made / 'personalise.png', full_page=True)
            dark = open_window(browser, address, _NARROW, color_scheme='dark')
            dark.wait_for_timeout(4000)
            dark.screenshot(path=made / 'narrow_dark.png', full_page=True)
            go_to(window, 'Gallery')
            window.get_by_role('button', name='Look again').click()
            window.locator('#work-dirs img').first.click()
            window.wait_for_timeout(2000)
            prompts = window.get_by_label('Texts, a picture on each line')
            prompts.locator('visible=true').fill('a dog on the beach')
            window.get_by_role('button', name='Draw').locator(
                'visible=true'
            ).click()
            window.get_by_text('a dog on the beach').last.wait_for()
            window.wait_for_timeout(4000)
            window.screenshot(path=made / 'gallery.png', full_page=True)


if __name__ == '__main__':
    main()
