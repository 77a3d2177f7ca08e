"""Contract C1: how types are found, from here and from other projects."""

import subprocess
import sys
from collections import OrderedDict

import pytest
from mmengine.registry import DefaultScope
from tiny import make_hiper

from mmhiper.registry import MODELS
from mmhiper.utils import register_all_modules


def python(code: str) -> str:
    """Runs code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, '-c', code],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture(autouse=True)
def no_scope_yet(monkeypatch):
    """A process in which no default scope was made; restored afterwards."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


def test_types_need_no_prefix_in_our_scope(tiny_sd1):
    register_all_modules()

    assert DefaultScope.get_current_instance().scope_name == 'mmhiper'
    assert type(make_hiper(tiny_sd1, type='HiPer')).__name__ == 'HiPer'


def test_another_project_keeps_its_scope(tiny_sd1):
    DefaultScope.get_instance('another', scope_name='mmengine')

    register_all_modules(init_default_scope=False)
    editor = make_hiper(tiny_sd1)  # type='mmhiper.HiPer', inner types bare

    assert DefaultScope.get_current_instance().scope_name == 'mmengine'
    assert type(editor.sd).__name__ == 'StableDiffusion'


def test_importing_is_light_and_leaves_other_projects_alone():
    code = """
import sys, torch, mmengine
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

heavy = {'diffusers', 'transformers', 'mmcv', 'PIL', 'safetensors'}
loaded = set(sys.modules)
import_modules_from_strings(['mmhiper'])  # `custom_imports` of a config
print(sorted(heavy & (set(sys.modules) - loaded)))
print(DefaultScope.get_current_instance())
print(MODELS.get('mmhiper.HiPer').__name__)
print(HOOKS.get('mmhiper.PreviewHook').__name__)
print(DATASETS.get('mmhiper.SourceImageDataset').__name__)
import mmhiper.apis
print('diffusers' in sys.modules)
"""

    assert python(code).split() == [
        '[]',
        'None',
        'HiPer',
        'PreviewHook',
        'SourceImageDataset',
        'False',
    ]


def test_unknown_types_are_an_error():
    with pytest.raises(KeyError, match='NoSuchEditor'):
        MODELS.build(dict(type='mmhiper.NoSuchEditor'))
