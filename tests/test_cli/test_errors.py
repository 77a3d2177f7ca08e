import errno

import pytest
import torch

from mmhiper.cli.errors import user_errors
from mmhiper.utils.atomic import check_writable
from mmhiper.utils.errors import MissingFileError


def test_mistake_becomes_one_line(capsys):
    with pytest.raises(SystemExit) as exit_, user_errors():
        check_writable('/dev/null/run')

    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith('error: Cannot write')


def test_unknown_option_becomes_one_line(capsys):
    with pytest.raises(SystemExit), user_errors():
        user_errors(n_hipr=5)

    assert 'n_hipr' in capsys.readouterr().err


def test_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match='invalid literal'), user_errors():
        int('x')
    with pytest.raises(ValueError, match='not enough'), user_errors():
        _first, _second = torch.zeros(1)


def test_interruption(capsys):
    with pytest.raises(SystemExit) as exit_, user_errors():
        raise KeyboardInterrupt('Nothing is saved yet.')

    assert exit_.value.code == 130
    error = capsys.readouterr().err
    assert error == '\nInterrupted. Nothing is saved yet.\n'


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (torch.OutOfMemoryError('CUDA out of memory.'), 'The memory of'),
        (OSError(errno.ENOSPC, 'No space left', 'a.pth'), 'No space left: a'),
        (OSError(errno.ENAMETOOLONG, 'Too long', 'a'), 'Too long: a'),
        (PermissionError(errno.EACCES, 'Denied', 'x'), 'Denied: x'),
        (KeyError('Hipr is not in the model registry. Check.'), 'Hipr is'),
        (ImportError('Run "pip install tensorboard".'), 'Run "pip'),
        (ImportError('Failed to import judge_metric'), 'Failed to import ju'),
    ],
)
def test_failures_that_are_no_bugs_are_one_line(capsys, error, words):
    with pytest.raises(SystemExit) as exit_, user_errors():
        raise error
    assert exit_.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith(f'error: {words}')
    assert line.count('\n') == 1

    with pytest.raises(type(error)), user_errors(debug=True):
        raise error


def test_a_missing_file_is_both_kinds_of_error():
    """Callers may catch what the standard library would have raised."""
    assert issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(MissingFileError, ValueError)
    assert str(MissingFileError('There is no a.png.')) == 'There is no a.png.'
