"""Keywords of mmagic's: every editor says where they live here."""

import inspect

import pytest
from mmengine.config import Config
from runs import REPO
from tiny import make_word

import mmhiper.models
from mmhiper.apis import list_editors
from mmhiper.models import HiPer
from mmhiper.models.editors.moved import MOVED
from mmhiper.registry import MODELS

# What mmagic's TextualInversion and StableDiffusion take and ours do not.
THEIRS = (
    'vae',
    'text_encoder',
    'tokenizer',
    'unet',
    'scheduler',
    'test_scheduler',
    'dtype',
    'enable_xformers',
    'noise_offset_weight',
    'tomesd_cfg',
    'init_cfg',
)


@pytest.mark.parametrize('name', THEIRS)
def test_every_name_has_advice(tiny_sd1, name):
    with pytest.raises(ValueError, match=f'takes no `{name}`') as error:
        make_word(tiny_sd1, **{name: None})

    assert f'`{name}`: {MOVED[name]}' in str(error.value)


@pytest.mark.parametrize('name', list_editors())
def test_every_editor_gives_it_before_anything_is_loaded(name):
    words = 'takes no `unet`, `dtype`'
    with pytest.raises(ValueError, match=f'{name} {words}'):
        MODELS.build(dict(type=f'mmhiper.{name}', unet={}, dtype='fp16'))


def test_a_whole_model_of_mmagic_gets_one_answer():
    """Each of its parts is named, with the setting that replaces it."""
    parts = {n: {} for n in ('vae', 'unet', 'text_encoder', 'scheduler')}
    with pytest.raises(ValueError) as error:
        mmhiper.models.TextualInversion('<cat-toy>', tokenizer='x', **parts)

    for name in (*parts, 'tokenizer'):
        assert f'`{name}`: the frozen model is named once' in str(error.value)


def test_what_nobody_knows_stays_a_type_error(tiny_sd1):
    with pytest.raises(TypeError, match=r'unexpected keyword.*nonsense'):
        make_word(tiny_sd1, nonsense=1)


def test_an_editor_with_such_a_keyword_keeps_it(tiny_sd1):
    class Typed(HiPer):
        def __init__(self, *args, dtype, **options):
            super().__init__(*args, **options)
            self.kind = dtype

    sd = dict(type='StableDiffusion', pretrained=str(tiny_sd1))
    assert Typed(sd, 'a dog', dtype='fp16').kind == 'fp16'


def test_constructors_show_what_they_take():
    """The advice comes from around them, and hides nothing."""
    assert 'source_text' in inspect.signature(HiPer).parameters


def test_the_options_that_the_advice_names_are_there(tiny_sd1):
    shown = Config.fromfile(REPO / 'configs' / '_base_' / 'sd_v1_5.py')
    sd = dict(
        shown.model.sd, pretrained=str(tiny_sd1), without_cuda=None,
        dtype='bf16', gradient_checkpointing=True, offload=True,
        scheduler=dict(type='DDIMScheduler'),
        vae=dict(pretrained=str(tiny_sd1)),
    )  # fmt: skip
    editor = make_word(tiny_sd1, sd=sd, noise_offset=0.1)

    assert editor.noise_offset == 0.1
