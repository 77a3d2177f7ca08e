"""What files say of their tensors, where it is damaged."""

from pathlib import Path

import pytest
import torch

from mmhiper.io.record import read_record
from mmhiper.utils.errors import FileError

PATH = Path('a.pth')


def refusal(document) -> str:
    with pytest.raises(FileError) as error:
        read_record(document, PATH)
    words = str(error.value)
    assert words.startswith("The record of 'a.pth'") and '\n' not in words
    assert len(words) < 500
    return words


@pytest.mark.parametrize('step', [float('inf'), float('nan'), [], {}, 'x'])
def test_a_step_of_0_1_that_is_no_number(step):
    assert "'step'" in refusal(dict(editor='HiPer', step=step))


@pytest.mark.parametrize(
    'editor', ['os.system', '', '2HiPer', 'x' * 100_000, 'Hi\nPer', 'Hi Per']
)
def test_an_editor_that_is_no_name(editor):
    assert 'names as its editor' in refusal(dict(version=1, editor=editor))


def test_a_value_of_several_lines():
    assert 'str is wanted' in refusal(
        dict(version=1, editor=torch.zeros(2, 3))
    )


@pytest.mark.parametrize('document', [None, [], 'text', 3, torch.zeros(2)])
def test_a_record_that_is_no_dict(document):
    assert 'not a dict' in refusal(document)
