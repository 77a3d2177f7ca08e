"""Which embedding fits which editor."""

import pytest
import torch

from mmhiper.io.identity import Identity

TAIL = {'embedding.tail': torch.zeros(1, 5, 8)}
RECORD = dict(editor='HiPer', backbone='owner/model-a')


def test_what_fits_loads():
    expected = Identity.of(TAIL, RECORD)

    expected.check_loads(Identity.of(TAIL, RECORD))
    expected.check_loads(Identity.of(TAIL, {}))  # not recorded: not compared
    moved = dict(RECORD, backbone='/models/model-a/')
    expected.check_loads(Identity.of(TAIL, moved))


@pytest.mark.parametrize(
    ('tensors', 'record'),
    [
        ({}, RECORD),
        ({'embedding.tail': torch.zeros(1, 5, 16)}, RECORD),
        ({'embedding.rows': torch.zeros(1, 5, 8)}, RECORD),
        (TAIL, dict(RECORD, editor='TextualInversion')),
        (TAIL, dict(RECORD, backbone='owner/model-b')),
    ],
)
def test_what_does_not_fit_is_named_on_both_sides(tensors, record):
    expected = Identity.of(TAIL, RECORD)
    found = Identity.of(tensors, record)

    with pytest.raises(ValueError) as error:
        expected.check_loads(found)

    assert f'expected: {expected}' in str(error.value)
    assert f'found:    {found}' in str(error.value)
    assert 'embedding.tail (1, 5, 8)' in str(error.value)
