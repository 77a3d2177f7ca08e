"""What the page makes of what people ask for, with no browser."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image
from runs import draw_image

from mmhiper.cli import main
from mmhiper.jobs import DONE, STOPPED, Jobs
from mmhiper.runs import find_run, list_runs
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError
from mmhiper.utils.sheet import read_panels
from mmhiper.web import forms, look, uploads
from mmhiper.web.drawing import Studio, downloads, export

EDITS = ('a dog', 'a cat\n\n a  fox ', 'center', 2, 2)


@pytest.fixture
def picture():
    return Image.effect_noise((64, 48), 90).convert('RGB')


def asked(root, picture, *values, pretrained=None, mask=None):
    values = values or EDITS
    return forms.personalise(
        root, picture, mask, *values, pretrained=pretrained
    )


def test_a_run_is_a_config_that_is_data(tmp_path, picture):
    mask = Image.new('L', picture.size, 255)
    run = asked(tmp_path, picture, mask=mask, pretrained='mini-sd')
    cfg = read_config(run.folder / 'asked.json')

    assert cfg.model.source_text == 'a dog'
    assert cfg.model.target_text == 'a cat'
    assert run.asked()['targets'] == ['a cat', 'a fox']
    assert cfg.model.sd.pretrained == 'mini-sd'
    assert cfg.model.hold_outside == 1.0
    assert cfg.train_cfg.max_iters == 2
    kinds = [hook.type for hook in cfg.custom_hooks]
    assert {'PreviewHook', 'LossCurveHook'} <= set(kinds)
    assert asked(tmp_path, picture).name == 'a dog 2'


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        (('', *EDITS[1:]), 'in words'),
        (('a dog', ' \n', *EDITS[2:]), 'in words'),
        (('x' * 3000, *EDITS[1:]), '2000 letters'),
        (('a dog', 'a cat', 'subject', 2, 2), 'Paint over the subject'),
        (('{{ fileDirname }}', *EDITS[1:]), 'placeholder'),
    ],
)
def test_what_cannot_be_asked_leaves_nothing(tmp_path, picture, values, words):
    with pytest.raises(UserError, match=words):
        asked(tmp_path, picture, *values)
    assert list_runs(tmp_path) == []


def test_a_text_is_a_name_of_no_other_place(tmp_path, picture):
    run = asked(tmp_path / 'root', picture, '../../etc', *EDITS[1:])
    assert run.folder.parent == tmp_path / 'root'
    for name in ('..', '.', '', None, str(run.folder), '../root'):
        with pytest.raises(UserError, match='Choose one'):
            find_run(tmp_path / 'root', name)
    assert find_run(tmp_path / 'root', run.name).folder == run.folder


def test_a_damaged_folder_is_shown_all_the_same(tmp_path):
    folder = tmp_path / 'run'
    (folder / '2026' / 'vis_data').mkdir(parents=True)
    (folder / 'request.json').write_text('{"kind": 5, "remark": 7}')
    (folder / 'asked.json').write_text('[]')
    (folder / '2026' / 'vis_data' / 'scalars.json').write_text(
        '{"fixed_loss": 0.5, "step": 0}\n{"fixed_lo\n7\n[]\n{"iter": "x"}\n'
    )
    (run,) = list_runs(tmp_path)
    progress = run.progress()
    assert progress.curve == {0: 0.5} and progress.done == 0
    assert '>7<' in look.show_run(run, '<b>', progress)
    assert '&lt;b&gt;' in look.show_run(run, '<b>', progress)
    assert not run.pictures() and not run.snapshots() and not run.preview()


def test_words_and_their_baselines(tmp_path, picture):
    word = forms.learn_word(
        tmp_path, [picture], '<toy>', 'x', True, 5, pretrained=None
    )
    cfg = read_config(word.folder / 'asked.json')
    assert cfg.model.placeholder_token == '<toy>'
    assert '<toy>' in cfg.model.val_prompts[0]
    assert (word.folder / 'photos' / '00.png').is_file()

    run = forms.edit_words(
        tmp_path,
        picture,
        'a dog',
        'a cat',
        ['NullTextInversion', 'DDIMInversion', '../x'],
        3,
        pretrained=None,
    )
    kinds = {
        folder.name: read_config(folder / 'asked.json').model.type
        for folder in run.steps()
    }
    assert kinds == {
        run.name: 'StyleDiffusion',
        'NullTextInversion': 'NullTextInversion',
    }
    # one that learns nothing is not trained
    cfg = read_config(run.folder / 'DDIMInversion' / 'inversion.json')
    assert cfg.model.type == 'DDIMInversion'


def test_uploads_are_upright_and_from_their_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path / 'uploads'))
    (tmp_path / 'uploads').mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / 'uploads' / 'photo.jpg'
    Image.new('RGB', (3000, 600), 'red').save(photo, exif=exif)
    image, remarks = uploads.read_upload(str(photo))
    assert image.size == (307, uploads.MOST_SIDE) and not remarks

    outside = draw_image(tmp_path / 'outside.png')
    with pytest.raises(UserError, match='Only uploaded'):
        uploads.read_upload(str(outside))
    (tmp_path / 'uploads' / 'link.png').symlink_to(outside)
    with pytest.raises(UserError, match='Only uploaded'):
        uploads.read_upload(str(tmp_path / 'uploads' / 'link.png'))
    photo.write_bytes(b'GIF89a')
    with pytest.raises(UserError, match=r"'photo\.jpg'") as caught:
        uploads.read_upload(str(photo))
    assert str(tmp_path) not in str(caught.value)
    for paths in (None, [str(photo)] * 41):
        with pytest.raises(UserError, match='1 to 40'):
            uploads.read_uploads(paths)


def test_paint_is_the_mask(picture):
    layer = Image.new('RGBA', picture.size)
    layer.paste((255, 80, 0, 255), (10, 0, 20, 48))
    painted = dict(background=picture.convert('RGBA'), layers=[layer])
    found, mask = uploads.split_painted(painted)
    assert np.asarray(found).tolist() == np.asarray(picture).tolist()
    assert (np.asarray(mask) == 255).sum() == 10 * 48
    assert uploads.split_painted(painted | {'layers': []})[1] is None
    with pytest.raises(UserError, match='Choose a photo'):
        uploads.split_painted(dict(background=None, layers=[]))


def test_one_run_at_a_time_to_its_pictures(tmp_path, picture, tiny_sd1):
    runs = [
        asked(tmp_path, picture, pretrained=str(tiny_sd1)) for _ in range(2)
    ]
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
        run, ['a fox'], run.checkpoint(), num_inference_steps=2, strength=0.5
    )
    made = json.loads((drawn.parent / 'pictures.json').read_text())
    assert made[0]['options']['strength'] == 0.5
    assert len(downloads(run, [drawn])) == 2
    assert export(run, 'mmhiper').endswith('iter_2.safetensors')
    with pytest.raises(UserError, match='no word'):
        export(run, 'diffusers')


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
    word = forms.learn_word(
        tmp_path, [picture], '<toy>', 'x', False, 1, pretrained=str(tiny_sd1)
    )
    studio = Studio(str(tiny_sd1))
    assert 'good' in studio.say_word('<toy>', ' x ')
    assert 'single token' in studio.say_word('<toy>', 'xyz')
    finished(studio, word)
    # the tiny model has no CLIP to tell by
    assert 'image_encoder' in word.asked()['remark']

    run = forms.edit_words(
        tmp_path,
        picture,
        'a dog',
        'a cat',
        ['DDIMInversion'],
        1,
        pretrained='mini-sd',
    )
    finished(studio, run)
    captions = [text for text, _ in read_panels(run.pictures()[0])]
    assert captions == [
        'StyleDiffusion: a dog',
        'a cat',
        'DDIMInversion: a dog',
        'a cat',
    ]
    maps = [text for text, _ in read_panels(run.pictures()[1])]
    assert maps == ['a', 'dog']


def test_gradio_that_is_missing_or_in_bad_company(
    tmp_path, monkeypatch, capsys
):
    def says():
        with pytest.raises(SystemExit) as caught:
            main(['web'])
        assert caught.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    # as a package in this folder describes itself
    about = tmp_path / 'gradio-6.31.0.dist-info'
    about.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    head = 'Metadata-Version: 2.1\nName: gradio\nVersion: 6.31.0\n'
    needs = 'Requires-Dist: pillow<2.0\n'
    (about / 'METADATA').write_text(head + needs)
    assert 'needs pillow<2.0, but' in says()
    needs = 'Requires-Dist: no-such-package>1\n'
    (about / 'METADATA').write_text(head + needs)
    assert 'needs no-such-package>1, but it is not installed' in says()
    (about / 'METADATA').unlink()
    about.rmdir()
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    assert 'needs Gradio, which is not installed: pip install' in says()
