"""Files that should be configs."""

import pytest
from runs import DOG

from mmhiper.utils.config_file import read_config


def test_a_config():
    assert read_config(str(DOG)).model.type == 'HiPer'


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('dog.png', '', r'ends in \.py'),
        ('open.py', 'model = dict(', 'cannot be read'),
        ('unknown.py', 'model = dog', "cannot be read.*'dog'"),
        ('data.py', 'data = 1', 'has no `model`'),
    ],
)
def test_no_config(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_config(tmp_path / name)


def test_a_base_that_is_missing(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = ['b.py']")
    with pytest.raises(FileNotFoundError, match=r'b\.py'):
        read_config(tmp_path / 'a.py')
