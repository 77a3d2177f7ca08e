"""What a person does in each view, in a real browser."""

from __future__ import annotations

import json

import browser
import numpy as np
import pytest
from PIL import Image
from runs import draw_image

from mmhiper.engine.launch import train
from mmhiper.studio import requests
from mmhiper.utils.config_file import read_config
from mmhiper.utils.sheet import read_panels

reason = browser.why_not()
pytestmark = pytest.mark.skipif(bool(reason), reason=reason)

SIDE = 256  # of a photo


@pytest.fixture
def window(chrome, address):
    """A window of its own, from which no request has left the machine."""
    window = browser.open_window(chrome, address)
    yield window
    for url in window.requests:
        assert url.startswith((address, 'blob:', 'data:')), url


def pipeline(run):
    cfg = read_config(run / 'asked.json')
    return cfg.train_dataloader.dataset, cfg.model


def test_what_is_painted_is_what_is_learned(window, root, tmp_path):
    browser.upload(window, draw_image(tmp_path / 'photo.png', size=SIDE))
    browser.paint(window, SIDE, (0.25, 0.25), (0.75, 0.25))
    window.get_by_label('what is painted').check()
    browser.fill(window, 'What it shows', 'a toy')
    browser.fill(window, 'What to make of it, an edit on each line', 'a cup')
    browser.start(window, number=1)
    browser.wait_for_state(window, 'a toy: done')

    run = root / 'a toy'
    with Image.open(run / 'mask.png') as image:
        mask = np.asarray(image)
    assert mask.shape == (SIDE, SIDE) and set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask)
    # around the stroke, whatever the brush is, and nowhere else
    for places, middle in ((rows, SIDE / 4), (columns, SIDE / 2)):
        ends = (places.min() + places.max()) / 2
        assert abs(ends - middle) < 0.02 * SIDE
    assert np.ptp(rows) < SIDE / 4 and np.ptp(columns) > SIDE / 2
    data, model = pipeline(run)
    assert data.mask == str(run / 'mask.png') and model.hold_outside == 1.0
    (crop,) = (t.crop for t in data.pipeline if t.type == 'SquareCrop')
    assert crop == 'subject'
    # as the training shows what it saw
    panels = read_panels(run / 'previews' / 'iter_000001.png')
    assert panels[0][0] == 'source (faded: not learned)'


def test_a_word_is_learned_from_photos(window, root, tmp_path):
    browser.go_to(window, 'Learn a word')
    photos = [draw_image(tmp_path / f'{k}.png', seed=k) for k in range(2)]
    browser.give(window, *photos)
    browser.fill(window, 'A name for it', '<cup-9>')
    start = 'A word for what it is, where the learning starts'
    browser.fill(window, start, 'xyz')
    window.get_by_text('must be a single token').wait_for()
    browser.fill(window, start, 'x')
    window.get_by_text('is one word to the model: good').wait_for()
    browser.start(window, number=1)
    browser.wait_for_state(window, 'cup-9: done')

    # what was measured, beside plain words
    browser.wait_for_state(window, 'image similarity: ')
    report = json.loads((root / 'cup-9/test/report.json').read_text())
    value = report['learned']['image_similarity']
    browser.wait_for_state(window, f'image similarity: {value:.3f}')
    assert len(list((root / 'cup-9' / 'photos').iterdir())) == 2
    data, model = pipeline(root / 'cup-9')
    assert model.initialize_token == 'x' and data.placeholder == '<cup-9>'
    with window.expect_download() as caught:
        browser.shown_in(window, 'a[href*="cup-9.safetensors"]').click()
    assert caught.value.suggested_filename == 'cup-9.safetensors'


def test_a_picture_is_edited_by_its_words(window, root, tmp_path):
    browser.go_to(window, 'Edit a picture by words')
    browser.upload(window, draw_image(tmp_path / 'photo.png'))
    browser.fill(window, 'What it shows', 'a fox')
    edits = 'The same with other words, an edit on each line'
    browser.fill(window, edits, 'a cow')
    window.get_by_label('DDIMInversion').check()
    browser.start(window, 'Inner steps', 1)
    browser.wait_for_state(window, 'a fox: done')

    # a row of each editor, and below them where each word is
    run = root / 'a fox'
    for file, captions in (
        (
            'sheet.png',
            [
                'StyleDiffusion: a fox',
                'a cow',
                'DDIMInversion: a fox',
                'a cow',
            ],
        ),
        ('attention.png', ['a', 'fox']),
    ):
        assert [text for text, _ in read_panels(run / file)] == captions
        with Image.open(run / file) as image:
            width = image.width
        window.wait_for_function(
            '(width) => [...document.images].some(each => '
            'each.offsetWidth && each.naturalWidth == width)',
            arg=width,
        )


@pytest.fixture
def words(root, backbone):
    """Two words, each of its own run, with two snapshots."""
    names = []
    for seed, name in enumerate(('<cap>', '<jug>')):
        picture = Image.new('RGB', (64, 64), ['red', 'blue'][seed])
        run = requests.learn_word(
            root, [picture], name, 'x', False, 2, pretrained=str(backbone)
        )
        cfg = read_config(run.folder / 'asked.json')
        cfg.custom_hooks = [
            hook for hook in cfg.custom_hooks if hook.type != 'LossCurveHook'
        ]
        train(cfg)
        names.append(run.name)
    return names


def test_words_of_several_runs_at_any_snapshot(window, root, words):
    first, second = words
    browser.go_to(window, 'Gallery')
    browser.choose_run(window, first)
    others = window.get_by_label('More words, of other runs')
    others.click()
    window.get_by_role('option', name=second).click()
    browser.fill(
        window, 'Texts, a picture on each line', 'a <cap> and a <jug>'
    )
    browser.shown_in(window, 'button:text-is("Draw")').click()
    record = browser.drawn(window, root / first, 0)
    assert record['prompt'] == 'a <cap> and a <jug>'
    assert record['checkpoint']['file'] == 'iter_2.pth'
    (other,) = record['embeddings']
    assert other['file'] == 'iter_2.safetensors'

    # the slider alone draws again, with the snapshot that it is left at
    slider = window.get_by_label('range slider for Snapshot, by iteration')
    box = slider.bounding_box()
    window.mouse.click(box['x'] + 2, box['y'] + box['height'] / 2)
    record = browser.drawn(window, root / first, 1)
    assert record['checkpoint']['file'] == 'iter_1.pth'
