"""Every way in says how threads wait before torch is loaded, none other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import REPO

from mmhiper import threads
from mmhiper.cli import doctor

TOOLS = REPO / 'tools'
SCRIPTS = sorted(
    path for path in TOOLS.rglob('*.py') if '__main__' in path.read_text()
)
# Ends the process where torch is about to be loaded, and says what it will
# find.
WATCH = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == 'torch':
            print('\\ntorch', os.environ.get('GOMP_SPINCOUNT'), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
sys.argv = {argv!r}
import runpy
{run}
"""


def at_torch(argv: list[str], run: str, **environ: str) -> str | None:
    """What ``GOMP_SPINCOUNT`` is when torch is loaded; '' if it never is."""
    names = (threads.COUNT, threads.POLICY)
    kept = {k: v for k, v in os.environ.items() if k not in names}
    output = subprocess.run(
        [sys.executable, '-c', WATCH.format(argv=argv, run=run)],
        env={**kept, **environ, 'PYTHONPATH': str(REPO / 'tests')},
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
    ).stdout
    return output.rpartition('torch ')[2].strip() if 'torch ' in output else ''


def script(path: Path, *words: str) -> tuple[list[str], str]:
    """How a script is run."""
    run = f'sys.path.insert(0, {str(path.parent)!r})\n'
    run += f'runpy.run_path({str(path)!r}, run_name="__main__")'
    return [str(path), *words], run


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_such_a_way(path):
    # with words that get it past the reading of its options where it can
    words = ['x', '--help'] if path.name == 'dist_run.py' else ['--help']
    if path.name == 'busy_machine.py':
        words = ['--child']  # whose setting is what is measured
        assert at_torch(*script(path, *words)) == 'None'
        return
    found = at_torch(*script(path, *words))
    assert found in ('', str(threads.SPINS))


@pytest.mark.parametrize(
    ('argv', 'run'),
    [
        (['mmhiper', 'doctor'], 'from mmhiper.cli import main; main()'),
        (
            ['mmhiper', 'edit', 'x'],
            'runpy.run_module("mmhiper", None, "__main__")',
        ),
        script(TOOLS / 'train.py', 'hiper/dog'),
        script(TOOLS / 'edit_cases.py', 'x.csv', '--out-dir', 'x'),
        script(TOOLS / 'dist_run.py', 'x.py'),
        (['pytest'], 'import conftest'),
    ],
)  # fmt: skip
def test_torch_finds_a_bounded_wait(argv, run):
    assert at_torch(argv, run) == str(threads.SPINS)
    # what the user says stays
    assert at_torch(argv, run, GOMP_SPINCOUNT='7') == '7'
    assert at_torch(argv, run, OMP_WAIT_POLICY='PASSIVE') == 'None'


@pytest.mark.parametrize('name', ['mmhiper', 'mmhiper.cli', 'mmhiper.apis'])
def test_importing_the_package_changes_nothing(name):
    run = f'import {name}; import torch'
    assert at_torch(['program'], run) == 'None'


def test_where_torch_is_loaded_it_is_too_late(monkeypatch):
    for name in (threads.COUNT, threads.POLICY):
        monkeypatch.delenv(name, raising=False)
    assert 'torch' in sys.modules
    threads.bound_spin()
    assert threads.COUNT not in os.environ


@pytest.mark.skipif(
    'libgomp' not in Path('/proc/self/maps').read_text()
    if Path('/proc/self/maps').is_file()
    else True,
    reason='torch has another OpenMP here',
)
@pytest.mark.parametrize(
    ('environ', 'long'),
    [
        ({}, True),
        ({'GOMP_SPINCOUNT': str(threads.SPINS)}, False),
        ({'GOMP_SPINCOUNT': '0'}, False),
        ({'GOMP_SPINCOUNT': '1 M'}, True),
        ({'GOMP_SPINCOUNT': 'INFINITE'}, True),
        ({'GOMP_SPINCOUNT': 'x'}, True),
        ({'OMP_WAIT_POLICY': 'passive'}, False),
        ({'OMP_WAIT_POLICY': 'ACTIVE'}, True),
        ({'OMP_WAIT_POLICY': 'ACTIVE', 'GOMP_SPINCOUNT': '10'}, False),
    ],
)
def test_doctor_tells_when_threads_wait_long(monkeypatch, environ, long):
    for name in (threads.COUNT, threads.POLICY):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    (finding,) = doctor.look_at_threads()
    assert finding.kind == ('note' if long else 'ok')
    assert bool(finding.remedy) == long
    for name, value in environ.items():
        assert f'{name}={value}' in finding.words


def test_the_count_has_one_place():
    for path in [*TOOLS.rglob('*'), *(REPO / 'mmhiper').rglob('*.py')]:
        if path.suffix in ('.py', '.sh') and path.name != 'threads.py':
            assert f'{threads.COUNT}={threads.SPINS}' not in path.read_text()
