"""One training at a time, from a request to its pictures."""

from __future__ import annotations

import json

import pytest
from inversion import with_image_encoder

from mmhiper.studio import requests
from mmhiper.studio.jobs import DONE, STOPPED, Jobs
from mmhiper.studio.studio import Studio, downloads, export
from mmhiper.utils.errors import UserError
from mmhiper.utils.sheet import read_panels


def test_one_run_at_a_time_to_its_pictures(tmp_path, ask, tiny_sd1):
    runs = [ask(tmp_path, pretrained=str(tiny_sd1)) for _ in range(2)]
    studio = Studio(str(tiny_sd1))
    jobs = Jobs(studio.finish)
    try:
        for run in runs:
            jobs.add(run)
        with pytest.raises(UserError, match='waits already'):
            jobs.add(runs[1])
        jobs.stop(runs[1])
        assert jobs.state(runs[1]) == STOPPED
        with jobs._changed:
            assert jobs._changed.wait_for(lambda: not jobs.line(), 300)
    finally:
        jobs.close()

    (run, other) = runs
    assert jobs.state(run) == DONE, jobs.state(run)
    assert not other.snapshots()
    assert [file.name for file in run.pictures()] == [
        'sheet.png',
        *(f'{number:03d}.png' for number in range(4)),
    ]
    progress = run.progress()
    assert (progress.done, progress.total) == (2, 2)
    assert sorted(progress.curve) == [0, 1, 2]
    assert sorted(run.snapshots()) == [1, 2]
    assert 'Traceback' not in (run.folder / 'console.log').read_text()
    (drawn,) = studio.draw(
        run, ['a fox'], 1, num_inference_steps=2, strength=0.5
    )
    made = json.loads((drawn.parent / 'pictures.json').read_text())
    assert made[0]['options']['strength'] == 0.5
    assert made[0]['checkpoint']['file'] == 'iter_1.pth'
    assert len(downloads(run, [drawn], tmp_path)) == 2
    assert export(run, 'mmhiper', tmp_path).endswith('iter_2.safetensors')
    with pytest.raises(UserError, match='no word'):
        export(run, 'diffusers', tmp_path)


def finished(studio, *runs):
    jobs = Jobs(studio.finish)
    for run in runs:
        jobs.add(run)
    with jobs._changed:
        assert jobs._changed.wait_for(lambda: not jobs.line(), 900)
    jobs.close()
    for run in runs:
        assert jobs.state(run) == DONE, jobs.state(run)


def test_a_word_and_an_edit_by_words_to_their_ends(
    tmp_path, picture, tiny_sd1
):
    word = requests.learn_word(
        tmp_path, [picture], '<toy>', 'x', False, 1, pretrained=str(tiny_sd1)
    )
    studio = Studio(str(tiny_sd1))
    assert 'good' in studio.say_word('<toy>', ' x ')
    assert 'single token' in studio.say_word('<toy>', 'xyz')
    finished(studio, word)
    # the tiny model has no CLIP to tell by
    assert 'image_encoder' in word.asked()['remark']

    model = with_image_encoder(tiny_sd1, tmp_path / 'model', 32)
    run = requests.edit_words(
        tmp_path,
        picture,
        'a dog',
        'a cat',
        requests.BASELINES,
        1,
        pretrained=str(model),
    )
    finished(studio, run)
    captions = [text for text, _ in read_panels(run.pictures()[0])]
    assert captions[::2] == [
        f'{name}: a dog' for name in ('StyleDiffusion', *requests.BASELINES)
    ]
    assert captions[1::2] == ['a cat'] * 5
    maps = [text for text, _ in read_panels(run.pictures()[1])]
    assert maps == ['a', 'dog']
