"""The page in a real browser: people who click, reload and go away."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import zipfile

import browser
import pytest
from PIL import Image

reason = browser.why_not()
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)

EDITS = 'What to make of it, an edit on each line'


def draw_from_the_gallery(window, root):
    """Any run, at any snapshot, and its export."""
    browser.go_to(window, 'Gallery')
    browser.choose_run(window, 'a flag')
    browser.fill(window, 'Texts, a picture on each line', 'a yellow flag')
    browser.set_number(window, 'Snapshot, by iteration', 1)
    browser.shown_in(window, 'button:text-is("Draw")').click()
    window.get_by_text('a yellow flag').locator('visible=true').last.wait_for()
    made = browser.drawn(window, root / 'a flag _b_', 1)
    assert made['checkpoint']['file'] == 'iter_1.pth'

    browser.shown_in(window, 'button:text-is("Export")').click()
    with window.expect_download() as caught:
        browser.shown_in(window, 'a[href*="iter_2.safetensors"]').last.click()
    assert caught.value.suggested_filename == 'iter_2.safetensors'


def test_two_people_one_training_at_a_time(chrome, address, root, tmp_path):
    first = browser.open_window(chrome, address)
    browser.take_example(first)
    browser.start(first, number=5000)
    browser.wait_for_state(first, 'of 5000 steps')

    # a second person, with a photo that lies on its side
    photo = tmp_path / 'photo.jpg'
    picture = Image.new('RGB', (64, 48), 'red')
    picture.paste('blue', (0, 0, 32, 48))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn it by 90 degrees
    picture.save(photo, exif=exif)
    second = browser.open_window(chrome, address)
    assert 'is learning' in second.locator('#line').text_content()
    browser.upload(second, photo)
    browser.fill(second, 'What it shows', 'a flag <b>')
    browser.fill(second, EDITS, 'a small flag\n\na large flag')
    browser.start(second)
    second.locator('#line').get_by_text('waiting: a flag').wait_for()
    with Image.open(root / 'a flag _b_' / 'photo.png') as upright:
        assert upright.size == (48, 64)
        red, _, blue = upright.getpixel((24, 8))
        assert blue > red  # what was on the left is on top

    # closing or reloading a page loses nothing
    first.reload()
    browser.wait_for_state(first, 'a standing dog on the grass: learning')
    browser.shown_in(first, 'button:text-is("Stop")').click()
    browser.wait_for_state(first, 'stopped')

    # so it is the turn of the second one
    browser.wait_for_state(second, 'a flag _b_: done')
    run = root / 'a flag _b_'
    assert json.loads((run / 'request.json').read_text())['targets'] == [
        'a small flag',
        'a large flag',
    ]
    for name in ('sheet.png', '000.png', '003.png', 'iter_2.safetensors'):
        assert (run / name).is_file()
    pictures = browser.shown_in(second, '.grid-container img')
    pictures.nth(3).wait_for()
    assert pictures.count() == 4
    pictures.nth(2).click()
    made = second.locator('.json-holder').locator('visible=true')
    made.get_by_text('a small flag').first.wait_for()
    with second.expect_download() as caught:
        second.get_by_role('link', name='KB').nth(1).click()
    with zipfile.ZipFile(caught.value.path()) as archive:
        assert '003.png' in archive.namelist()

    # again, without learning again
    browser.fill(second, 'Texts, a picture on each line', 'a green flag')
    browser.shown_in(second, 'button:text-is("Draw")').click()
    second.get_by_text('a green flag').locator('visible=true').last.wait_for()
    assert (run / 'drawn' / '000' / '000.png').is_file()

    # the first one goes on where it was
    browser.shown_in(first, 'button:text-is("Go on")').click()
    browser.wait_for_state(first, 'learning')
    dog = root / 'a standing dog on the grass'
    for _ in range(200):
        if 'Resuming from' in (dog / 'console.log').read_text():
            break
        first.wait_for_timeout(1000)
    else:
        raise AssertionError((dog / 'console.log').read_text()[-2000:])
    browser.shown_in(first, 'button:text-is("Stop")').click()
    browser.wait_for_state(first, 'stopped')
    draw_from_the_gallery(second, root)
    for window in (first, second):
        assert window.requests
        for url in window.requests:  # nothing leaves the machine
            assert url.startswith((address, 'blob:', 'data:')), url


def test_a_broken_photo_is_told_in_a_line(chrome, address, root, tmp_path):
    window = browser.open_window(chrome, address)
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'\x89PNG\r\n\x1a\n and no more <script>')
    browser.give(window, broken)
    toast = window.locator('.toast-body')
    toast.get_by_text('broken.png').wait_for()
    browser.start(window)
    toast.get_by_text('Choose a photo first').wait_for()
    assert not list(root.glob('broken*'))


def test_files_and_strangers_stay_outside(address, root):
    secret = root / 'secret.png'
    secret.write_text('x')
    for path in (secret, '/etc/hostname'):
        url = f'{address}gradio_api/file={path}'
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
        assert caught.value.code in (403, 404)
    request = urllib.request.Request(address, headers={'Host': 'evil.example'})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    answer = urllib.request.urlopen(address)
    assert "default-src 'self'" in answer.headers['content-security-policy']
