from __future__ import annotations

import pytest
import torch
from torch import nn

from eaglenet_mm.engine.optimizers import AutocastOptimWrapper
from eaglenet_mm.registry import OPTIM_WRAPPERS


@pytest.mark.parametrize('dtype', ['bfloat16', torch.bfloat16])
def test_forward_runs_in_bfloat16_and_weights_stay_float32(dtype):
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    wrapper = OPTIM_WRAPPERS.build(
        dict(type='AutocastOptimWrapper', dtype=dtype),
        default_args=dict(
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
        ),
    )
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 3))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight.detach(), before - 0.1)


@pytest.mark.parametrize('dtype', ['float16', 'half', torch.float32, None])
def test_other_types_are_refused(dtype):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match=f"'bfloat16', but got '?{dtype}"):
        AutocastOptimWrapper(dtype=dtype, optimizer=optimizer)
