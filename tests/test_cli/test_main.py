"""The entry point: its commands, help texts and exit codes."""

import shlex
import subprocess
import sys

import pytest

import mmhiper
from mmhiper.cli import COMMANDS, main


def told(capsys, *words: str) -> tuple[int, str, str]:
    """Runs a command line that ends early: exit code, output, error."""
    with pytest.raises(SystemExit) as exit_:
        main(words)
    return exit_.value.code, *capsys.readouterr()


def test_the_front_lists_every_command_with_what_it_does(capsys):
    code, out, _ = told(capsys, '--help')

    assert code == 0
    for name, summary in COMMANDS.items():
        assert f'    {name}' in out and summary.split()[0] in out
    assert '130' in out


def test_version(capsys):
    assert told(capsys, '--version') == (
        0,
        f'mmhiper {mmhiper.__version__}\n',
        '',
    )


@pytest.mark.parametrize('words', [[], ['edti'], ['edit'], ['train', '--x']])
def test_a_wrong_command_line_is_code_2(capsys, words):
    code, _, error = told(capsys, *words)

    assert code == 2
    assert error.startswith('usage: mmhiper') and 'Traceback' not in error


@pytest.mark.parametrize('name', COMMANDS)
def test_every_help_has_an_example_that_its_parser_takes(
    capsys, name, monkeypatch
):
    code, out, _ = told(capsys, name, '--help')
    assert code == 0 and '--debug' in out
    example = out.split('example:\n')[1].replace('\\\n', ' ')

    command = __import__(f'mmhiper.cli.{name}', fromlist=['run'])
    called = []
    monkeypatch.setattr(command, 'run', called.append)
    lines = example.strip().splitlines()
    for line in lines:
        program, first, *words = shlex.split(line)
        assert (program, first) == ('mmhiper', name)
        assert main([first, *words]) == 0
    assert len(called) == len(lines)


def test_debug_shows_the_traceback(capsys):
    words = ['convert', 'none.pt', 'out.bin']
    code, _, error = told(capsys, *words)
    assert code == 1
    assert error.startswith("error: Wanted an embedding file, but 'none.pt' ")
    assert error.count('\n') == 1

    with pytest.raises(FileNotFoundError):
        main([*words, '--debug'])


def test_python_m(tmp_path):
    """A process of its own, somewhere else."""
    result = subprocess.run(
        [sys.executable, '-m', 'mmhiper', 'infer', 'a', 'b', '--prompt', 'c'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert result.returncode == 1
    assert result.stderr.startswith('error: ')
    assert "'a'" in result.stderr
