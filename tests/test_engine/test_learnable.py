"""What a training cannot learn from is said before it starts."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from editors import run_of
from PIL import Image
from runs import DOG, REPO, config, draw_image

from mmhiper.engine.hooks.learned_hook import describe_change
from mmhiper.engine.launch import train
from mmhiper.utils.errors import UserError

WORD = REPO / 'configs' / 'textual_inversion' / 'textual_inversion.py'
TEMPLATE = 'train_dataloader.dataset.template'
IMG = 'train_dataloader.dataset.img'
FAR = 'very ' * 90 + '{}'


def refused(cfg) -> str:
    """What a run that must not begin says; it has trained nothing."""
    with pytest.raises(UserError) as caught:
        train(cfg)
    words = str(caught.value)
    assert '\n' not in words
    return words


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({TEMPLATE: ['a {}', FAR]}, r"'very very.* ... .*very <cat-toy>' has"),
        ({TEMPLATE: [FAR]}, r'tokens, of which the model reads the first 75'),
        ({'model.num_vectors_per_token': 75}, r"'a <cat-toy>' has 76 tokens"),
        (
            {'model.val_prompts': ['a <cat-toy>', 'x' * 75 + ' <cat-toy>']},
            'validation prompt .* has 76 tokens',
        ),
        (
            {'model.num_vectors_per_token': 73, 'model.per_image_tokens': 1},
            r"with <\|image0\|>' has",
        ),
        (
            {'train_dataloader.dataset.placeholder': '<toy>'},
            "sentences with the placeholder '<cat-toy>', but has 'a <toy>'",
        ),
        (
            {
                'model.placeholder_token': ['<cat-toy>', '<other>'],
                'model.val_prompts': ['a <cat-toy>'],
            },
            "The word '<other>' is in no template",
        ),
        (
            {
                'model.num_vectors_per_token': 3,
                'model.progressive_interval': 1,
            },
            '2 of 3 vectors come into use in 2 iterations',
        ),
    ],
)
def test_a_word_that_is_not_read(tmp_path, tiny_sd1, values, words):
    cfg = config(tmp_path, tiny_sd1, file=WORD, **values)
    assert re.search(words, refused(cfg))


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'model.strength': 0}, '`strength` must not be 0'),
        ({'model.target_text': 'a  Standing dog'}, 'the same as'),
        (
            {
                'model.n_hiper': 70,
                'model.source_text': 'abcdef g',
                'model.target_text': 'abcdef h',
            },
            'its first 6 tokens are read',
        ),
        ({'model.source_text': ['a', 'b']}, 'has 2 texts.* 1 picture'),
        ({'optim_wrapper.optimizer.lr': 0}, 'With 0 nothing is ever learned'),
        ({'optim_wrapper.optimizer.lr': 0.0}, 'must be a number above 0'),
        ({'optim_wrapper.optimizer.lr': '5e-3x'}, "above 0, but got '5e-3x'"),
        (
            {'optim_wrapper.clip_grad': dict(max_norm=0)},
            '`optim_wrapper.clip_grad.max_norm` must be a number above 0',
        ),
        (
            {
                'optim_wrapper.paramwise_cfg': dict(
                    custom_keys={'embedding': dict(lr_mult=0)}
                )
            },
            'All learning rates are 0',
        ),
    ],
)
def test_settings_with_which_nothing_is_learned(
    tmp_path, tiny_sd1, values, words
):
    assert re.search(words, refused(config(tmp_path, tiny_sd1, **values)))


def test_an_inversion_to_its_own_text(tmp_path, tiny_sd1):
    cfg = run_of('NullTextInversion', tiny_sd1, tmp_path)
    cfg.model.target_text = 'A dog'
    assert "to the model 'A dog' is the same as 'a dog'" in refused(cfg)


def test_pictures_that_are_all_the_same_file(tmp_path, tiny_sd1):
    image = draw_image(tmp_path / 'image.png')
    for name in ('b.png', 'c.png'):
        (tmp_path / name).write_bytes(image.read_bytes())
    words = refused(config(tmp_path, tiny_sd1, file=WORD))
    assert "All 3 pictures of '<cat-toy>' are the same one" in words
    assert 'b.png' in words and 'c.png' in words

    draw_image(tmp_path / 'c.png', 1)  # one other is enough
    train(config(tmp_path, tiny_sd1, file=WORD))


def test_one_picture_under_two_texts(tmp_path, tiny_sd1):
    image = str(draw_image(tmp_path / 'image.png'))

    def twice(*texts):
        values = {
            IMG: [image, image],
            'train_dataloader.batch_size': 2,
            'model.source_text': list(texts),
        }
        return config(tmp_path, tiny_sd1, **values)

    assert 'are the same one' in refused(twice('a dog', 'a dog'))
    train(twice('a dog', 'a fox'))  # each learns its own


def test_a_mask_of_less_than_a_pixel(tmp_path, tiny_sd1):
    draw_image(tmp_path / 'image.png', size=640)
    mask = np.zeros((640, 640), np.uint8)
    mask[:9, :9] = 255  # a pixel of the model is 10 x 10 of these
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    option = {'train_dataloader.dataset.mask': str(tmp_path / 'mask.png')}
    words = refused(config(tmp_path, tiny_sd1, **option))
    assert 'image.png' in words and "crop='subject'" in words

    mask[:10, :10] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    train(config(tmp_path, tiny_sd1, **option))


def test_a_batch_that_repeats_its_picture(tmp_path, tiny_sd1, capsys):
    option = 'train_dataloader.batch_size'
    train(config(tmp_path, tiny_sd1, **{option: 3}))
    said = capsys.readouterr()
    words = said.out + said.err
    assert 'A step has 3 row(s)' in words and 'for 1 picture(s)' in words
    assert '3 times as much' in words

    train(config(tmp_path, tiny_sd1, **{option: 1}))
    said = capsys.readouterr()
    assert 'A step has' not in said.out + said.err


# ------------------------------------------------------------- what came of it
def closing(capsys) -> str:
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    found = [each for each in lines if 'times its own noise' in each]
    assert len(found) == 1, lines
    return found[0]


@pytest.mark.parametrize('file', [DOG, WORD])
def test_a_run_ends_with_whether_it_has_learned(
    tmp_path, tiny_sd1, capsys, file
):
    fast = {'optim_wrapper.optimizer.lr': 0.05}
    train(config(tmp_path, tiny_sd1, iters=60, **fast))
    assert 'Learned: the loss on fixed noise went from' in closing(capsys)

    slow = {'optim_wrapper.optimizer.lr': 1e-12}
    train(config(tmp_path, tiny_sd1, iters=2, file=file, **slow))
    assert 'Nothing measurable was learned' in closing(capsys)


def test_an_inversion_tells_by_its_timesteps(tmp_path, tiny_sd1, capsys):
    train(run_of('NullTextInversion', tiny_sd1, tmp_path))
    assert 'first and last, went from' in closing(capsys)


def test_a_resumed_run_tells_of_the_whole(tmp_path, tiny_sd1, capsys):
    fast = {
        'optim_wrapper.optimizer.lr': 0.05,
        'default_hooks.checkpoint.interval': 30,
    }
    train(config(tmp_path, tiny_sd1, iters=60, **fast))
    whole = closing(capsys).partition('went from')[2]
    train(
        config(tmp_path, tiny_sd1, iters=60, **fast),
        resume=str(tmp_path / 'run' / 'iter_30.pth'),
    )
    assert closing(capsys).partition('went from')[2] == whole


def test_a_change_is_told_in_units_of_its_noise():
    before = torch.tensor([3.0, 5.0, 4.0, 4.0])
    # a standard deviation of 1 over 4 draws: half of it is the noise
    around = torch.tensor([1.0, -1.0, 1.0, -1.0]) * 0.75**0.5

    words = describe_change('it', before, before - 1.25 + around)
    assert 'Learned: it went from 4 to 2.75, -1.2, which is 2.5 times' in words
    words = describe_change('it', before, before + 1.25 + around)
    assert words.startswith('Worse than where it began')
    words = describe_change('it', before, before - 0.5 + around)
    assert 'which is 1.0 times' in words
    assert words.startswith('Nothing measurable was learned')
    assert 'Nothing' in describe_change('it', before, before)
