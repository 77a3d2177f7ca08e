"""How near is equal: every tolerance of the suite comes from here.

Two ways to compute the same number differ by rounding, and by how much depends
on the machine: on its vector instructions, its libraries, its threads, and on
where a file puts a weight in memory. Guidance, sampling steps and random
weights amplify that, in this suite by up to 1e5. So a bound that one machine
has shown says nothing about the next. What is compared is either

- the same operations on the same shapes in one process: `torch.equal`;
- two ways to the same number: both in double precision (`float64`), where
  amplified rounding stays far below `EXACT` and a mistake far above;
- grey levels: rounding moves a value over the border between two of them, so
  one level (`GREY_LEVEL`);
- what single precision itself is tested for: a bound derived beside the test
  from `EPS`, the spacing of its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from mmhiper.models.loading import DTYPES

EPS = torch.finfo(torch.float32).eps  # 1.2e-7

# Double precision rounds by 1.1e-16. Amplified by 1e5 that is 1e-11; rounding
# of single precision anywhere on the way is 6e-8 before it is amplified.
EXACT = dict(rtol=1e-9, atol=1e-9)

# Coefficients of diffusers' schedulers are of single precision whatever the
# rest is. One step of DDIM has two, on values below 10, and divides by
# sqrt(alpha) > 0.05.
ONE_STEP = 2 * EPS * 10 / 0.05

GREY_LEVEL = 1


@contextmanager
def float64() -> Iterator[None]:
    """Has all that would be of single precision be of double precision.

    Models that are loaded inside, and what the package computes with them.
    Buffers of diffusers' schedulers stay as they are: they are the same
    numbers on both sides of a comparison.

    Yields:
        None
    """
    single = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, 'float', torch.Tensor.double)
        patch.setitem(DTYPES, 'fp32', torch.float64)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(single)
