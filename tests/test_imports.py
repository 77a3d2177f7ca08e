"""The direction of imports: from what knows little to what knows all."""

import ast
import subprocess
import sys
from pathlib import Path

import mmhiper

ROOT = Path(mmhiper.__file__).parent
# Each layer may import the ones above it, and itself.
LAYERS = [
    ['interruption', 'registry', 'version'],
    ['utils', 'io'],
    [
        'models.attention',
        'models.autocast',
        'models.conditioning',
        'models.edit_options',
        'models.image_encoder',
        'models.loading',
        'models.loss_weights',
        'models.offload',
        'models.prompt',
        'models.prompt_alignment',
        'models.prompt_to_prompt',
        'models.sampling',
        'models.schedulers',
        'models.text_encoders',
        'models.vocabulary',
        'models.words',
        'models.embeddings',
        'models.guidance',
        'models.data_preprocessor',
    ],
    ['models.stable_diffusion'],
    ['models.denoising', 'models.inversion'],
    ['models.pipelines'],
    ['models.editors'],
    ['datasets', 'engine', 'evaluation'],
    ['apis'],
    ['cli', '__main__'],
]
# Packages gather what they hold, for their users.
GATHERERS = {'models', ''}


def modules() -> dict[str, Path]:
    """All modules by their dotted names inside the package."""
    result = {}
    for path in ROOT.rglob('*.py'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        if parts[-1] == '__init__':
            parts = parts[:-1]
        result['.'.join(parts)] = path
    return result


def imports_of(path: Path) -> set[str]:
    """What a module imports of the package when it is loaded or run."""
    found = set()
    tree = ast.parse(path.read_text())
    only_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == 'TYPE_CHECKING'
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in only_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ''
            if node.level:  # relative to the folder, or to one above it
                folder = path.relative_to(ROOT.parent).parents[node.level - 1]
                module = '.'.join([*folder.parts, *module.split('.')])
            found |= {f'{module}.{alias.name}' for alias in node.names}
            found.add(module)
    prefix = 'mmhiper.'
    return {
        name.removeprefix(prefix) for name in found if name.startswith(prefix)
    }


def layer_of(name: str) -> int | None:
    """The place of a module in the order, None if it has none."""
    for number, layer in enumerate(LAYERS):
        for start in layer:
            if name == start or name.startswith(f'{start}.'):
                return number
    return None


def test_every_module_has_a_place():
    placed = {name for name in modules() if layer_of(name) is not None}

    assert set(modules()) - placed == GATHERERS


def test_imports_go_one_way():
    for name, path in modules().items():
        if name in GATHERERS:
            continue
        for imported in imports_of(path):
            target = layer_of(imported)
            if target is not None:
                assert target <= layer_of(name), f'{name} -> {imported}'


def test_embeddings_never_see_the_frozen_model():
    for name, path in modules().items():
        if name.startswith('models.embeddings'):
            for imported in imports_of(path):
                assert imported.startswith(
                    ('models.embeddings', 'utils.errors')
                ), imported


def test_hooks_reach_a_model_through_its_methods_alone():
    for name, path in modules().items():
        if name.startswith('engine'):
            assert not any(
                imported.startswith('models') for imported in imports_of(path)
            ), name


def test_importing_the_package_imports_next_to_nothing():
    light = {'version', 'version.__version__'}
    # when `mmhiper.to_diffusers` is first asked for
    later = {'models.pipelines', 'models.pipelines.to_diffusers'}

    assert imports_of(ROOT / '__init__.py') <= light | later
    loaded = 'import sys, mmhiper.cli; print(sorted(sys.modules))'
    modules = subprocess.run(
        [sys.executable, '-c', loaded],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert 'mmhiper.interruption' in modules  # and so can be stopped
    assert 'mmengine' not in modules and 'torch' not in modules
    assert mmhiper.registry.SCOPE == 'mmhiper'


def test_starting_a_run_imports_no_library_that_it_may_not_need():
    code = 'import sys, mmhiper.engine.launch, mmhiper.models; '
    modules = subprocess.run(
        [sys.executable, '-c', code + 'print(*sys.modules)'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert 'torch' in modules
    needless = {'diffusers', 'matplotlib', 'torchvision', 'pandas', 'scipy'}
    assert not needless & set(modules)
    assert 'torch.utils.tensorboard' not in modules


def test_the_check_would_find_a_wrong_import(tmp_path):
    path = tmp_path / 'module.py'
    path.write_text('def f():\n    from mmhiper.apis import load_editor\n')

    assert 'apis' in imports_of(path)
    assert 'engine.hooks' in imports_of(ROOT / 'engine/__init__.py')
    assert layer_of('apis') > layer_of('models.editors.hiper')
