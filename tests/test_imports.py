"""The direction of imports: from what knows little to what knows all."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import mmhiper

ROOT = Path(mmhiper.__file__).parent
# From the ground up: a module imports what is below it. What shares a floor
# may import each other; in `models` each file has a floor of its own.
FLOORS = [
    ['version'],
    ['interruption', 'registry', 'threads'],
    ['utils', 'io'],
    *(
        [f'models.{name}']
        for name in (
            'autocast',
            'compiling',
            'offload',
            'conditioning',
            'embeddings',
            'loss_weights',
            'loading',
            'schedulers',
            'sampling',
            'start_pictures',
            'guidance',
            'attention',
            'layered_text',
            'edit_options',
            'prompt',
            'prompt_alignment',
            'prompt_to_prompt',
            'vocabulary',
            'foreign_words',
            'words',
            'text_encoders',
            'image_encoder',
            'data_preprocessor',
            'backbones.noise',
            'backbones.record',
            'backbones.base',
            'backbones.single_file',
            'backbones.stable_diffusion',
            'backbones.latent_diffusion',
            'backbones.stable_diffusion_3',
            'backbones',  # which gathers them
            'memory',
            'denoising',
            'drawing',
            'weighted_text',
            'inversion',
            'pipelines',
            'editors.moved',
            'editors.texts',
            'editors.base',
            'editors.denoising',
            'editors.earlier_tails',
            'editors.hiper',
            'editors.word_editor',
            'editors.textual_inversion',
            'editors.varying_words',
            'editors.extended_textual_inversion',
            'editors.prospect',
            'editors.inversion',
            'editors.ddim_inversion',
            'editors.direct_inversion',
            'editors.curriculum',
            'editors.null_text',
            'editors.style_diffusion',
            'editors.from_record',
            'editors',  # which gathers them
        )
    ),
    ['models'],  # likewise
    ['datasets', 'engine', 'evaluation'],
    ['apis'],
    ['inferencer'],
    ['bench', 'many', 'publishing', 'results'],
    # the studio trains by the command line, which opens its page
    ['cli', 'studio', 'web', '__main__'],
]
FLOOR_OF = {
    name: number for number, floor in enumerate(FLOORS) for name in floor
}
# Imports what it is asked for, when it is.
DOOR = ''
TOOLS = ROOT.parent / 'tools'


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
    """What a module imports of the package, also later or for its types."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
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


def floor_of(name: str) -> int | None:
    """Where a module, or what is in it, has its place; None if nowhere."""
    while name:
        if name in FLOOR_OF:
            return FLOOR_OF[name]
        name = name.rpartition('.')[0]
    return None


def goes_up(name: str, imported: str) -> bool:
    """Whether an import is of something above."""
    target, own = floor_of(imported), floor_of(name)
    return target is not None and target > own


def test_every_module_has_a_place():
    homeless = {name for name in modules() if floor_of(name) is None}
    in_models = {name for name in modules() if name.startswith('models.')}
    parts = ('models.embeddings.',)  # a package is one house

    assert homeless == {DOOR}
    assert {n for n in in_models if not n.startswith(parts)} <= set(FLOOR_OF)
    assert set(FLOOR_OF) <= set(modules())


def test_imports_go_one_way():
    for name, path in modules().items():
        if name != DOOR:
            for imported in imports_of(path):
                assert not goes_up(name, imported), f'{name} -> {imported}'


def imports_of_tools(path: Path) -> set[str]:
    """What a module of the package imports of the scripts beside it."""
    scripts = {each.stem for each in TOOLS.rglob('*.py')}
    scripts |= {each.parent.name for each in TOOLS.rglob('__init__.py')}
    scripts.add('tools')
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or '']
        else:
            continue
        found |= {name for name in names if name.split('.')[0] in scripts}
    return found


def test_the_package_never_imports_tools():
    for name, path in modules().items():
        assert not imports_of_tools(path), name
        assert 'sys.path' not in path.read_text(), name


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


def test_io_names_no_flag_of_the_command_line():
    """Its words are for callers from Python too: `only`, not --only."""
    for name, path in modules().items():
        if name.startswith('io'):
            assert not re.findall(r'(?<![\w-])--[a-z][\w-]*', path.read_text())


def test_importing_the_package_imports_next_to_nothing():
    light = {'version', 'version.__version__'}
    # when `mmhiper.to_diffusers` is first asked for
    later = {'models.pipelines', 'models.pipelines.to_diffusers'}

    types = {'registry'}
    assert imports_of(ROOT / '__init__.py') <= light | later | types
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
    path.write_text(
        'from typing import TYPE_CHECKING\n'
        'if TYPE_CHECKING:\n'
        '    from mmhiper.models import Editor\n'
        'def f():\n'
        '    from mmhiper.apis import load_editor\n'
        '    from judge import load_judge\n'
    )

    found = imports_of(path)
    assert {'apis', 'models.Editor'} <= found
    assert imports_of_tools(path) == {'judge'}
    assert 'engine.hooks' in imports_of(ROOT / 'engine/__init__.py')
    assert goes_up('models.pipelines', 'models.Editor')
    assert goes_up('models.editors.base', 'models.editors.hiper.HiPer')
    assert goes_up('models.drawing', 'models.inversion')
    assert not goes_up('models.editors.hiper', 'models.editors.base.Editor')


def test_the_tools_of_the_mini_world_have_no_circle():
    folder = TOOLS / 'mini_sd'
    files = {path.stem: path for path in folder.glob('*.py')}
    needs = {
        name: {
            node.module if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        & set(files)
        for name, path in files.items()
    }
    assert 'evaluate_hiper' in needs['evaluate']

    # raises a CycleError, which names the circle
    order = list(TopologicalSorter(needs).static_order())
    assert set(order) == set(files)
