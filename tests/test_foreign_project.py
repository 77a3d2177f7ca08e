"""Editors in other projects: their scope, MMEngine's runner and hooks.

As a second project would: a package with registries of its own, a config
file, `custom_imports`, and no module of ours beyond the types it names.
"""

import textwrap
from pathlib import Path

import pytest
import torch
from inversion import with_image_encoder
from runs import draw_image
from test_packaging import python
from tiny import FAMILIES

from mmhiper.apis import load_editor

# What differs from editor to editor; inner types are found by themselves.
MODELS = dict(
    HiPer="source_text='a dog', target_text='a cat', n_hiper=3",
    TextualInversion="placeholder_token='<x>', initialize_token='x'",
    StyleDiffusion="source_text='a dog', num_steps=2, num_inner_steps=1",
)
DATASETS = dict(
    HiPer="type='mmhiper.SourceImageDataset', img={image!r}",
    TextualInversion="""
        type='mmhiper.TextualInversionDataset', data_root={folder!r},
        concept_dir='pictures', placeholder='<x>', template=['a {{}}']""",
    StyleDiffusion="type='mmhiper.SourceImageDataset', img={image!r}",
)
CONFIG = """
default_scope = 'atelier'
custom_imports = dict(imports=['mmhiper'])

model = dict(
    type='mmhiper.{kind}',
    sd=dict(type='StableDiffusion', pretrained={backbone!r}),
    {model},
)
train_dataloader = dict(
    batch_size=1,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        {dataset},
        pipeline=[
            dict(type='mmhiper.LoadUprightImage'),
            dict(type='mmhiper.SquareCrop'),
            dict(type='mmhiper.PackSourceImage'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(type='Adam', lr=5e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters={iterations})
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)
)
custom_hooks = [dict(type='AtelierHook')]  # one of the project itself
randomness = dict(seed=0)
work_dir = {work_dir!r}
experiment_name = {kind!r}
"""
REGISTRY = """
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import Registry

MODELS, DATASETS, HOOKS = (
    Registry(root.name, parent=root, scope='atelier', locations=['atelier'])
    for root in (MMENGINE_MODELS, MMENGINE_DATASETS, MMENGINE_HOOKS)
)
"""
PACKAGE = """
from mmengine.hooks import Hook
from atelier.registry import HOOKS, MODELS

@HOOKS.register_module()
class AtelierHook(Hook):
    def before_run(self, runner):
        print('the hook of the project ran')

@MODELS.register_module()
class HiPer:  # a namesake, which stays what it is
    pass
"""
TRAIN = """
import sys
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
import atelier.registry as own

def contents():
    return {n: sorted(r.module_dict) for n, r in vars(own).items()
            if n in ('MODELS', 'DATASETS', 'HOOKS')}

before = contents()
for file in sys.argv[1:]:
    runner = Runner.from_cfg(Config.fromfile(file))
    assert 'mmhiper' in sys.modules
    start = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()

    scope = DefaultScope.get_current_instance().scope_name
    assert scope == runner.default_scope.scope_name == 'atelier', scope
    assert before['MODELS'] == ['HiPer'] and contents() == before
    namesake = own.MODELS.build(dict(type='HiPer'))
    assert namesake.__class__.__module__ == 'atelier'
    ours = [type(hook) for hook in runner.hooks
            if type(hook).__module__.startswith('mmhiper')]
    assert not ours, ours
    learned = runner.model.state_dict()
    assert any((learned[k] != v).any() for k, v in start.items())
    print('trained', type(runner.model).__module__, runner.iter)
"""


@pytest.fixture(scope='module')
def backbone(tiny_sd1, tmp_path_factory):
    root = tmp_path_factory.mktemp('encoder')
    return with_image_encoder(tiny_sd1, root / 'sd1', FAMILIES['sd1'].width)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """The other package, a folder to be imported from."""
    package = tmp_path_factory.mktemp('project') / 'atelier'
    package.mkdir()
    (package / '__init__.py').write_text(PACKAGE)
    (package / 'registry.py').write_text(REGISTRY)
    return package.parent


def write_config(tmp_path: Path, backbone: Path, kind: str) -> Path:
    """The config of a run in the scope of the other package."""
    pictures = tmp_path / 'pictures'
    pictures.mkdir(parents=True)
    image = draw_image(pictures / 'a.png')
    path = tmp_path / 'config.py'
    dataset = DATASETS[kind].format(image=str(image), folder=str(tmp_path))
    path.write_text(
        CONFIG.format(
            kind=kind,
            backbone=str(backbone),
            model=MODELS[kind],
            dataset=textwrap.dedent(dataset),
            iterations=3 if kind == 'StyleDiffusion' else 2,
            work_dir=str(tmp_path / 'run'),
        )
    )
    return path


@pytest.fixture(scope='module')
def trained(backbone, project, tmp_path_factory):
    """The configs of runs in one process, and what it printed."""
    folder = tmp_path_factory.mktemp('runs')
    files = {
        kind: write_config(folder / kind, backbone, kind) for kind in MODELS
    }
    repo = Path(__file__).parents[1]
    words = ['-c', TRAIN, *files.values()]
    paths = f'{project}:{repo}'
    return files, python(*words, cwd=folder, PYTHONPATH=paths)


@pytest.mark.parametrize('kind', MODELS)
def test_trains_in_another_scope_with_stock_hooks(trained, kind):
    files, printed = trained
    file = files[kind]

    assert printed.count('the hook of the project ran') == len(files)
    module = dict(
        HiPer='hiper',
        TextualInversion='textual_inversion',
        StyleDiffusion='style_diffusion',
    )[kind]
    assert f'trained mmhiper.models.editors.{module}' in printed
    assert 'registry with scope "mmhiper"' not in printed  # a warning

    # Checkpoints are MMEngine's own, with objects in their logs: our reader
    # takes the tensors alone.
    run = file.parent / 'run'
    editor = load_editor(file, run / 'iter_2.pth', device='cpu')
    if kind == 'StyleDiffusion':  # done after two; the third does nothing
        assert editor.finished
        third = load_editor(file, run / 'iter_3.pth', device='cpu')
        for name, tensor in third.state_dict().items():
            assert torch.equal(editor.state_dict()[name], tensor)
    picture = editor.infer('a cat <x>', show_progress=False)['samples'][0]
    assert picture.size == (64, 64)
