"""Two processes on one card give the gradient of one.

Gloo carries tensors of CUDA through the host, so no second card is needed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.test_distributed_gradient import HEADS, check_processes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.dist,
    pytest.mark.timeout(240),
]


def test_gradient_of_processes(device: torch.device, tmp_path: Path) -> None:
    """Of heads that gather masks, sums, tokens and matching pairs."""
    names = [
        'eaglenet',
        'eaglenet-masked-chunked',
        *(
            name
            for name in HEADS
            if name.startswith(('TMASS', 'TextProxy', 'WTIHead decorr'))
        ),
    ]
    check_processes(names, 2, tmp_path, str(device))
