"""Autocast on the device keeps to the bounds it has on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.every_head import CASES
from tests.models.heads.test_eaglenet_head import VARIANTS, build
from tests.models.precision import (
    ERRORS,
    check_against_float64,
    check_half_precision,
)

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('dtype', ERRORS, ids=str)
def test_error_against_float64(
    dtype: torch.dtype, variant: str, device: torch.device
) -> None:
    def build_head() -> Any:
        torch.manual_seed(0)
        return build(**VARIANTS[variant])

    check_against_float64(build_head, dtype, device)


@pytest.mark.parametrize(
    ('name', 'variant'), CASES, ids=[' '.join(case) for case in CASES]
)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_every_head_comes_close(
    name: str, variant: str, dtype: torch.dtype, device: torch.device
) -> None:
    if (variant, dtype, device.type) == ('lstm', torch.float16, 'cpu'):
        pytest.skip('CPUs have no LSTM in float16')
    check_half_precision(name, variant, dtype, device)
