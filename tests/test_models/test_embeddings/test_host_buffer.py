"""Buffers that steer Python: saved as all are, and moved nowhere."""

import copy
import pickle

import pytest
import torch
from mmengine.runner import load_state_dict
from torch import nn

from mmhiper.models.embeddings import register_host_buffer


class Counter(nn.Module):
    """Counts, and has a weight."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        register_host_buffer(self, 'count', torch.tensor(count))


def test_it_stays_on_the_cpu():
    module = nn.Sequential(Counter(3)).to('meta').half()

    assert int(module[0].count) == 3
    assert not list(module.buffers())  # none to send to other processes
    state = module.state_dict()
    assert list(state) == ['0.weight', '0.count']
    assert state['0.weight'].is_meta and not state['0.count'].is_meta


@pytest.mark.parametrize(
    'load',
    [
        lambda module, state: module.load_state_dict(state),
        lambda module, state: load_state_dict(module, state, strict=True),
    ],
)
def test_it_comes_back(load):
    state = nn.Sequential(Counter(5)).state_dict()
    module = nn.Sequential(Counter())

    load(module, state)

    assert int(module[0].count) == 5
    assert '0.count' in state  # the caller's is left alone


def test_a_missing_one_is_an_error():
    module = nn.Sequential(Counter())
    state = module.state_dict()
    del state['0.count']

    with pytest.raises(RuntimeError, match=r'Missing.*"0.count"'):
        module.load_state_dict(state)
    assert module.load_state_dict(state, strict=False).missing_keys == [
        '0.count'
    ]


@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_copies_count_for_themselves(duplicate):
    module = Counter(1)

    other = duplicate(module)
    other.load_state_dict(Counter(7).state_dict())

    assert (int(module.count), int(other.count)) == (1, 7)
