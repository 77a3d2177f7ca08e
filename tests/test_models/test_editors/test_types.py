"""Values of a wrong type are one line each, whatever they are given to."""

from __future__ import annotations

import copy
import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from editors import EDITORS
from mmengine.config import Config
from tiny import make_hiper, make_word

from mmhiper.datasets import SourceImageDataset, TextualInversionDataset
from mmhiper.engine.hooks import (
    FiniteHook,
    LossCurveHook,
    PreviewHook,
    ProgressBarHook,
)
from mmhiper.inferencer import EditInferencer
from mmhiper.models import DDIMInversion
from mmhiper.registry import MODELS
from mmhiper.utils.errors import UserError

SD = dict(pretrained='mini-sd')
HIPER = dict(sd=SD, source_text='a dog')
WORD = dict(sd=SD, placeholder_token='<toy>')


def told(call, *args, **values) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **values)
    words = str(caught.value)
    assert '\n' not in words and len(words) < 500
    return words


def build(kind, **values):
    return MODELS.build(dict(type=f'mmhiper.{kind}', **values))


@pytest.mark.parametrize(
    ('kind', 'values', 'words'),
    [
        (
            'HiPer',
            dict(HIPER, source_text=123),
            'HiPer: `source_text` must be a text or a list of texts, but '
            "got 123. Write it in quotes: '123'.",
        ),
        ('HiPer', dict(HIPER, source_text=None), 'but got None'),
        ('HiPer', dict(HIPER, source_text=['a', 2]), "but got ['a', 2]"),
        (
            'HiPer',
            dict(HIPER, n_hiper=2.5),
            'HiPer: `n_hiper` must be a whole number, but got 2.5.',
        ),
        ('HiPer', dict(HIPER, n_hiper=3.0), 'but got 3.0. Write 3.'),
        ('HiPer', dict(HIPER, n_hiper='3'), 'Write it without quotes: 3.'),
        ('HiPer', dict(HIPER, n_hiper=True), 'but got True'),
        ('HiPer', dict(HIPER, strength=math.nan), 'It must be finite'),
        ('HiPer', dict(HIPER, strength='.8'), 'without quotes: 0.8'),
        ('HiPer', dict(HIPER, debiased='no'), 'must be True or False'),
        ('HiPer', dict(HIPER, val_prompts=5), 'HiPer: `val_prompts` must'),
        ('HiPer', dict(HIPER, sd='mini-sd'), 'HiPer: `sd` must be'),
        (
            'HiPer',
            dict(HIPER, data_preprocessor=dict(random_flip='yes')),
            '`data_preprocessor`: `random_flip` must be True or False',
        ),
        ('HiPer', dict(HIPER, n_hipper=3), 'Did you mean `n_hiper`?'),
        (
            'TextualInversion',
            dict(WORD, num_vectors_per_token=[1, 2.5]),
            'must be a whole number or a list of whole numbers',
        ),
        ('TextualInversion', dict(WORD, embedding=5), ': `embedding` must'),
        ('TextualInversion', dict(WORD, per_image_mixing='x'), 'a number'),
        (
            'DDIMInversion',
            dict(HIPER, edit=dict(tau_c='0.5')),
            '`edit`: `tau_c` must be a number or a list of numbers, but '
            "got '0.5'. Write it without quotes: 0.5.",
        ),
        ('DDIMInversion', dict(HIPER, num_steps=2.5), '`num_steps`'),
        ('DDIMInversion', dict(HIPER, target_text=7), "quotes: '7'"),
        ('StyleDiffusion', dict(HIPER, num_inner_steps='9'), 'quotes: 9'),
        (
            'StableDiffusion',
            dict(pretrained=5),
            'StableDiffusion: `pretrained`',
        ),
        ('StableDiffusion', dict(SD, offload='no'), 'True or False'),
        ('StableDiffusion', dict(SD, unet='x'), 'StableDiffusion: `unet`'),
        (
            'StableDiffusion',
            dict(SD, vae=dict(pretrained=5)),
            '`vae`: `pretrained` must be a text or None',
        ),
    ],
)
def test_constructors_of_models(kind, values, words):
    assert words in told(build, kind, **values)


@pytest.mark.parametrize(
    ('kind', 'values', 'words'),
    [
        (FiniteHook, dict(interval='100'), 'without quotes: 100'),
        (FiniteHook, dict(interval=1.5), 'a whole number, but got 1.5'),
        (LossCurveHook, dict(draws=None), 'LossCurveHook: `draws`'),
        (PreviewHook, dict(interval=2**64), 'between -2**63 and'),
        (ProgressBarHook, dict(description=5), "quotes: '5'"),
        (SourceImageDataset, dict(img=5), 'SourceImageDataset: `img`'),
        (SourceImageDataset, dict(img=['a.png', None]), '`img`'),
        (SourceImageDataset, dict(img='a.png', mask=1), '`mask`'),
        (SourceImageDataset, dict(img='a.png', pipeline='x'), '`pipeline`'),
        (
            TextualInversionDataset,
            dict(
                data_root='.',
                concept_dir=3,
                placeholder='<a>',
                template='a {}',
            ),
            'TextualInversionDataset: `concept_dir`',
        ),
        (
            TextualInversionDataset,
            dict(
                data_root='.',
                concept_dir='.',
                placeholder='<a>',
                template=['a {}', 5],
            ),
            'TextualInversionDataset: `template`',
        ),
    ],
)
def test_hooks_and_datasets(kind, values, words):
    assert words in told(kind, **values)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        (dict(prompt=None), '`prompt` must be a text or a list of texts'),
        (dict(prompt=['a', 3]), "but got ['a', 3]"),
        (dict(height=128.0), 'but got 128.0. Write 128.'),
        (dict(width='64'), '`width`'),
        (dict(num_inference_steps=2.5), '`num_inference_steps` must be'),
        (dict(num_images_per_prompt='2'), 'without quotes: 2'),
        (dict(seed=2**64), 'It must be between -2**63 and 2**63 - 1.'),
        (dict(seed=1.5), '`seed` must be a whole number, but got 1.5'),
        (dict(seed=math.inf), '`seed`'),
        (dict(guidance_scale=math.nan), '`guidance_scale`'),
        (dict(guidance_rescale='a'), '`guidance_rescale` must be a number'),
        (dict(guidance_interval=3), 'a pair of numbers or None'),
        (dict(eta=None), '`eta` must be a number, but got None'),
        (dict(negative_prompt=4), "quotes: '4'"),
        (dict(generator=4), '`generator`'),
        (dict(latents=[1]), '`latents` must be Tensor or None'),
        (dict(scheduler=5), '`scheduler` must be a text or a dict or None'),
        (dict(show_progress='no'), 'True or False'),
        (dict(return_type=1), '`return_type`'),
        (dict(strength='0.5'), 'without quotes: 0.5'),
        (dict(image=0.0), '`image` must be a whole number'),
        (dict(strenght=0.5), 'Did you mean `strength`?'),
    ],
)
def test_drawing(tiny_sd1, values, words):
    editor = make_hiper(tiny_sd1)
    assert words in told(editor.infer, **dict(dict(prompt='a cat'), **values))


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        (dict(tau_c='0.5'), "but got '0.5'. Write it without quotes: 0.5."),
        (dict(tau_c=True), '`tau_c`'),
        (dict(blend_words=0.5), '`blend_words`'),
        (dict(num_inference_steps=2.5), '`num_inference_steps`'),
        (dict(guidance_scale=math.nan), '`guidance_scale`'),
        (dict(strength=0.5), "keyword argument 'strength'. It has: height"),
    ],
)
def test_editing(tiny_sd1, values, words):
    sd = dict(pretrained=str(tiny_sd1), type='StableDiffusion')
    editor = DDIMInversion(sd, source_text='a dog', num_steps=2)
    said = told(editor.infer, 'a cat', **values)
    assert words in said.replace('prompt, height', 'height')


def test_an_option_of_another_editor_names_those_there_are(tiny_sd1):
    words = told(make_word(tiny_sd1).infer, 'a <cat-toy>', strength=0.5)
    assert (
        "TextualInversion got an unexpected keyword argument 'stren" in words
    )
    assert 'num_inference_steps' in words and 'scheduler' in words
    with pytest.raises(TypeError):  # also to Python
        make_word(tiny_sd1).infer('a <cat-toy>', strength=0.5)


@pytest.mark.parametrize(
    'values', [dict(num_images=2.5), dict(batch_size='2'), dict(seed=2**64)]
)
def test_the_inferencer(tiny_sd1, values):
    inferencer = EditInferencer(make_hiper(tiny_sd1))
    assert f'`{next(iter(values))}` must be' in told(
        inferencer, 'a cat', **values
    )


def test_what_people_write_fits(tiny_sd1):
    editor = make_hiper(
        tiny_sd1,
        source_text=('a dog',),
        n_hiper=np.int64(3),
        strength=1,
        val_prompts=None,
        data_preprocessor=Config(dict(a=dict(random_flip=False))).a,
    )
    editor.infer(
        ('a cat',),
        num_inference_steps=np.int32(1),
        guidance_scale=np.float32(3),
        guidance_interval=[0.1, 5],
        generator=[torch.Generator()],
        scheduler=dict(type='DDIMScheduler'),
        show_progress=False,
        strength=1,
    )
    assert EditInferencer(editor, device='cpu').words == []
    FiniteHook(5)


@pytest.mark.parametrize('kind', EDITORS)
def test_signatures_stay_readable(kind):
    editor = MODELS.get(f'mmhiper.{kind}') or MODELS.get(kind)
    if editor is None:  # of docs/en/examples, not imported here
        return
    assert 'prompt' in inspect.signature(editor.infer).parameters


def test_copies_are_not_calls(tiny_sd1):
    editor = make_hiper(tiny_sd1)
    other = copy.deepcopy(editor)
    assert other.given_arguments() == editor.given_arguments()
    hook = pickle.loads(pickle.dumps(LossCurveHook(5)))
    assert hook.interval == 5
