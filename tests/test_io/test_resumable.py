"""What a checkpoint must hold to be resumed."""

import copy

import pytest
import torch

from mmhiper.io import check_resumable, read_checkpoint
from mmhiper.utils.errors import FileError


def checkpoint() -> dict:
    """One as of a run, in small."""
    tail = torch.ones(1, 3, 4)
    moments = dict(step=torch.tensor(3.0), exp_avg=tail, exp_avg_sq=tail)
    return dict(
        meta=dict(iter=3, epoch=0),
        state_dict={'embedding.tail': tail},
        message_hub={},
        optimizer=dict(state={0: moments}, param_groups=[dict(params=[0])]),
        param_schedulers=[],
    )


def test_a_whole_one(tmp_path):
    torch.save(checkpoint(), tmp_path / 'a.pth')

    assert check_resumable(tmp_path / 'a.pth') is None


@pytest.mark.parametrize(
    ('place', 'value', 'words'),
    [
        ('meta', None, 'no `meta`'),
        ('meta', [], 'no `meta`'),
        ('meta.iter', None, 'must say the `iter`'),
        ('meta.epoch', 1.5, 'must say the `epoch`'),
        ('message_hub', [], '`message_hub` is no mapping'),
        ('param_schedulers', 3, '`param_schedulers` are no list'),
        ('optimizer', None, 'is no mapping'),
        ('optimizer.param_groups', [3], 'none of PyTorch'),
        ('optimizer.state', [], 'none of PyTorch'),
        ('optimizer.state.0.exp_avg', torch.ones(1, 9, 4), r'\(1, 9, 4\)'),
        ('optimizer.state.0.exp_avg_sq', 'x', 'remembers exp_avg_sq'),
        ('state_dict', [torch.ones(2)], "no 'state_dict' of tensors"),
        ('state_dict', {3: torch.ones(2)}, "no 'state_dict' of tensors"),
        ('state_dict', {'a': 'b'}, "no 'state_dict' of tensors"),
    ],
)
def test_one_with_something_of_another_form(tmp_path, place, value, words):
    content = copy.deepcopy(checkpoint())
    inner = content
    *way, last = [int(k) if k.isdigit() else k for k in place.split('.')]
    for key in way:
        inner = inner[key]
    inner[last] = value
    torch.save(content, tmp_path / 'a.pth')

    with pytest.raises(FileError, match=words) as error:
        check_resumable(tmp_path / 'a.pth')

    assert 'a.pth' in str(error.value)


@pytest.mark.parametrize('key', ['meta', 'optimizer', 'state_dict'])
def test_one_with_something_missing(tmp_path, key):
    content = checkpoint()
    del content[key]
    torch.save(content, tmp_path / 'a.pth')

    with pytest.raises(FileError, match=key.removesuffix('r')[:5]):
        check_resumable(tmp_path / 'a.pth')


@pytest.mark.parametrize('odd', [3, {'': 3}, {'': {'editor': 1}}, None])
def test_a_record_of_another_form(tmp_path, odd):
    content = checkpoint()
    state = torch.nn.Linear(1, 1).state_dict()
    state._metadata = odd
    content.update(state_dict=state, meta=odd)
    torch.save(content, tmp_path / 'a.pth')

    assert set(read_checkpoint(tmp_path / 'a.pth')) == {'weight', 'bias'}
