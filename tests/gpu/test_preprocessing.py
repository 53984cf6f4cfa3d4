"""Batches are prepared on the device as on the CPU."""

from __future__ import annotations

import pytest
import torch

from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor
from tests.models.test_data_preprocessor import frames, ids

pytestmark = pytest.mark.gpu


def test_frames_become_float_on_the_device(device: torch.device) -> None:
    inputs = dict(
        frames=[frames(3), frames(1), frames(4)],
        token_ids=[ids(2), ids(1), ids(3)],
    )
    preprocessor = RetrievalDataPreprocessor(num_frames=4)
    expected = preprocessor(dict(inputs=inputs))['inputs']
    got = preprocessor.to(device)(dict(inputs=inputs))['inputs']
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].device.type == device.type, name
        assert got[name].dtype == value.dtype, name
        torch.testing.assert_close(got[name].cpu(), value)
