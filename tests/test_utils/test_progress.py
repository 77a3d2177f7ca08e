"""Bars are a line every few seconds where they go to a file."""

import ast
import sys

import pytest
from runs import REPO

from mmhiper.utils import progress
from mmhiper.utils.progress import progress_bar

STEPS = 10_000


@pytest.fixture
def clock(monkeypatch):
    """The time that tqdm sees, in seconds, which tests move on."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr('tqdm.std.time', lambda: Clock.now)
    return Clock


def run(clock, seconds: float, **options) -> None:
    """A loop of many steps that takes some time."""
    with progress_bar(total=STEPS, desc='drawing', **options) as bar:
        for _ in range(STEPS):
            clock.now += seconds / STEPS
            bar.update()


def test_a_long_loop_is_a_line_every_few_seconds(capsys, clock):
    run(clock, 60)

    log = capsys.readouterr().err
    lines = log.splitlines()
    assert 2 <= len(lines) <= 60 / progress.SECONDS + 1
    assert all(line.startswith('drawing: ') for line in lines)
    assert len(set(lines)) == len(lines)
    assert lines[-1].startswith('drawing: 100%')
    assert not {'\r', '\x1b'} & set(log)


def test_a_short_loop_is_none(capsys, clock):
    run(clock, progress.SECONDS / 2)
    assert capsys.readouterr().err == ''


def test_bars_within_bars_are_lines_too(capsys, clock):
    for _ in progress_bar(range(3), desc='concepts'):
        run(clock, 20)

    log = capsys.readouterr().err
    lines = log.splitlines()
    assert {line.split(':')[0] for line in lines} == {'concepts', 'drawing'}
    assert not {'\r', '\x1b'} & set(log)


def test_a_bar_that_is_not_wanted_is_not_there(capsys, clock):
    run(clock, 60, disable=True)
    assert capsys.readouterr().err == ''


def test_a_terminal_has_the_bar_of_tqdm(capsys, clock, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    run(clock, 60)
    log = capsys.readouterr().err
    # it is drawn over and over, on one line
    assert log.count('\r') > 60 / progress.SECONDS
    assert log.count('\n') == 1


def test_every_bar_comes_from_here():
    """A bar of tqdm's own would be redrawn at each step."""
    here = REPO / 'mmhiper' / 'utils' / 'progress.py'
    for folder in ('mmhiper', 'tools', 'docs'):
        for path in (REPO / folder).rglob('*.py'):
            if path == here:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or '']
                else:
                    continue
                own = [name for name in names if name.startswith('tqdm')]
                assert not own, path


def test_a_last_state_is_written_once(capsys, clock):
    """Also where the last step is long, after which the bar is closed."""
    with progress_bar(total=2, desc='drawing') as bar:
        for _ in range(2):
            clock.now += 2 * progress.SECONDS
            bar.update()

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) == 2
