"""From what people ask for to a work dir."""

from __future__ import annotations

import pytest
from PIL import Image

from mmhiper.studio import requests
from mmhiper.studio.runs import find_run, list_runs
from mmhiper.utils.config_file import read_config
from mmhiper.utils.errors import UserError

EDITS = ('a dog', 'a cat', 'center', 2, 2)


def test_a_run_is_a_config_that_is_data(tmp_path, picture, ask):
    mask = Image.new('L', picture.size, 255)
    run = ask(tmp_path, mask=mask, pretrained='mini-sd')
    cfg = read_config(run.folder / 'asked.json')

    assert cfg.model.source_text == 'a dog'
    assert cfg.model.target_text == 'a cat'
    assert run.asked()['targets'] == ['a cat', 'a fox']
    assert cfg.model.sd.pretrained == 'mini-sd'
    assert cfg.model.hold_outside == 1.0
    assert cfg.train_cfg.max_iters == 2
    kinds = [hook.type for hook in cfg.custom_hooks]
    assert {'PreviewHook', 'LossCurveHook'} <= set(kinds)
    assert ask(tmp_path).name == 'a dog 2'


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
def test_what_cannot_be_asked_leaves_nothing(tmp_path, ask, values, words):
    with pytest.raises(UserError, match=words):
        ask(tmp_path, *values)
    assert list_runs(tmp_path) == []


def test_a_text_is_a_name_of_no_other_place(tmp_path, ask):
    run = ask(tmp_path / 'root', '../../etc', *EDITS[1:])
    assert run.folder.parent == tmp_path / 'root'
    for name in ('..', '.', '', None, str(run.folder), '../root'):
        with pytest.raises(UserError, match='Choose one'):
            find_run(tmp_path / 'root', name)
    assert find_run(tmp_path / 'root', run.name).folder == run.folder


def test_words_and_their_baselines(tmp_path, picture):
    word = requests.learn_word(
        tmp_path, [picture], '<toy>', 'x', True, 5, pretrained=None
    )
    cfg = read_config(word.folder / 'asked.json')
    assert cfg.model.placeholder_token == '<toy>'
    assert '<toy>' in cfg.model.val_prompts[0]
    assert (word.folder / 'photos' / '00.png').is_file()

    run = requests.edit_words(
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
