"""Contract C1: how types are found, from here and from other projects."""

import subprocess
import sys

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


@pytest.fixture
def scope_is_restored():
    """Puts the default scope back."""
    instances = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(instances)


@pytest.mark.usefixtures('scope_is_restored')
def test_types_need_no_prefix_in_our_scope(tiny_sd1):
    register_all_modules()

    assert DefaultScope.get_current_instance().scope_name == 'mmhiper'
    assert type(make_hiper(tiny_sd1, type='HiPer')).__name__ == 'HiPer'


@pytest.mark.usefixtures('scope_is_restored')
def test_another_project_keeps_its_scope(tiny_sd1):
    DefaultScope.get_instance('another', scope_name='mmengine')

    register_all_modules(init_default_scope=False)
    editor = make_hiper(tiny_sd1)  # type='mmhiper.HiPer', inner types bare

    assert DefaultScope.get_current_instance().scope_name == 'mmengine'
    assert type(editor.sd).__name__ == 'StableDiffusion'


def test_a_config_of_another_project_finds_them():
    code = (
        'from mmengine.config import Config\n'
        'from mmengine.registry import MODELS, HOOKS, DATASETS, DefaultScope\n'
        'Config(dict(custom_imports=dict(imports=["mmhiper"])))\n'
        'import mmhiper\n'
        'print(DefaultScope.get_current_instance())\n'
        'for registry, name in ((MODELS, "HiPer"), (HOOKS, "PreviewHook"), '
        '(DATASETS, "SourceImageDataset")):\n'
        '    print(registry.get(f"mmhiper.{name}").__name__)\n'
    )

    assert python(code).split() == [
        'None',
        'HiPer',
        'PreviewHook',
        'SourceImageDataset',
    ]


def test_importing_the_package_is_light():
    code = (
        'import sys, torch, mmengine\n'
        'before = set(sys.modules)\n'
        'import mmhiper\n'
        'new = {name.split(".")[0] for name in set(sys.modules) - before}\n'
        'print(sorted(new & {"diffusers", "transformers", "mmcv", "PIL", '
        '"safetensors", "accelerate"}))\n'
    )

    assert python(code).strip() == '[]'


def test_diffusers_is_imported_when_a_backbone_is_loaded():
    code = (
        'import sys\n'
        'import mmhiper.models, mmhiper.apis\n'
        'print("diffusers" in sys.modules)\n'
    )

    assert python(code).strip() == 'False'


def test_unknown_types_are_an_error():
    with pytest.raises(KeyError, match='NoSuchEditor'):
        MODELS.build(dict(type='mmhiper.NoSuchEditor'))
