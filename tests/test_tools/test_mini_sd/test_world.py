"""The mini world: seeds draw the same, and captions tell the truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from draw_data import CASES, DATA_SEED, draw_case
from PIL import Image

from world import (
    ACCESSORIES,
    FURS,
    PAINTS,
    PLACES,
    POSES,
    Scene,
    caption,
    draw,
    draw_with_mask,
    sample_individual,
    sample_scene,
)
from world.captions import NAME
from world.scene import TAILS

DATA = Path(__file__).parents[3] / 'data'


def scene(seed: int) -> Scene:
    return sample_scene(np.random.default_rng(seed))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_the_same_seed_draws_the_same_picture():
    assert scene(3) == scene(3)
    assert np.array_equal(pixels(draw(scene(3))), pixels(draw(scene(3))))
    assert not np.array_equal(pixels(draw(scene(3))), pixels(draw(scene(4))))


@pytest.mark.parametrize('seed', range(6))
def test_resolutions_show_the_same(seed):
    plain = replace(scene(seed), style='plain')
    small = pixels(draw(plain, 64))
    large = pixels(draw(plain, 256).resize((64, 64), Image.Resampling.BOX))
    assert np.abs(small - large).mean() < 4  # of 255: edges only


@pytest.mark.parametrize('pose', POSES)
@pytest.mark.parametrize('accessory', ACCESSORIES)
def test_mask_covers_all_that_depends_on_the_subject(pose, accessory):
    first = replace(
        scene(1), pose=pose, accessory=accessory, style='plain', flip=False
    )
    other = replace(
        first, individual=sample_individual(np.random.default_rng(9), 'cat')
    )
    a, mask_a = draw_with_mask(first)
    b, mask_b = draw_with_mask(other)
    outside = np.maximum(np.asarray(mask_a), np.asarray(mask_b)) == 0
    assert 0.3 < outside.mean() < 0.9
    assert np.array_equal(pixels(a)[outside], pixels(b)[outside])


def test_captions_name_only_what_is_drawn():
    rng = np.random.default_rng(0)
    named = 0
    for seed in range(300):
        shown = scene(seed)
        who = shown.individual
        text = caption(shown, rng)
        words = set(text.replace(',', '').split())
        assert words & set(POSES) <= {shown.pose}, text
        assert words & set(PLACES) <= {shown.place}, text
        assert words & set(ACCESSORIES) <= {shown.accessory}, text
        assert words & set(TAILS) <= {who.tail}, text
        if 'blaze' in words:
            assert who.blaze
        if who.species != 'robot':
            assert who.species in words
            furs = words & set(FURS)
            assert furs <= {who.fur_name, who.mark_name}, text
            named += who.fur_name in furs
        if 'collar' in words and shown.style == 'plain':
            assert f'{who.collar_name} collar' in text
        assert ('sketch' in words) == (shown.style == 'sketch')
        assert len(text.split()) < 60
    assert named > 150  # colour is named in most captions


def test_data_picture_is_what_the_code_draws():
    dog = sample_individual(np.random.default_rng([DATA_SEED, 15]), 'dog')
    drawn = draw(Scene(dog, 'standing', 'grass', scale=0.95, layout=15), 512)
    stored = pixels(Image.open(DATA / 'dog.png'))
    assert np.abs(pixels(drawn) - stored).mean() < 1  # of 255, any Pillow


@pytest.mark.parametrize('name', list(CASES)[:2])
def test_pictures_of_cases_are_what_the_code_draws(name):
    stored = pixels(Image.open(DATA / 'style_diffusion' / f'{name}.png'))

    drawn = pixels(draw_case(name))
    assert np.abs(drawn - stored).mean() < 1  # of 255, any Pillow


def test_every_case_has_its_picture():
    files = (DATA / 'style_diffusion').iterdir()

    assert {path.stem for path in files} == set(CASES)


def test_a_name_stands_for_all_that_a_caption_says_of_the_individual():
    rng = np.random.default_rng(0)
    for seed in range(100):
        shown = scene(seed)
        words = caption(shown, rng, named=True).replace(',', '').split()
        assert words.count(NAME) == 1
        assert not set(words) & {'dog', 'cat', 'robot', *TAILS, 'collar'}
        colours = set(words) & {*FURS, *PAINTS}
        assert colours <= {shown.accessory_name}


def test_bright_and_dark_pictures_are_what_they_are_called():
    rng = np.random.default_rng(0)
    said = set()
    for seed in range(400):
        shown = scene(seed)
        text = caption(shown, rng, named=True)
        night = shown.place == 'night'
        said |= {'bright', 'dark'} & set(text.split())
        assert 'bright' not in text or not night, text
        assert 'dark' not in text or night, text
    assert said == {'bright', 'dark'}
