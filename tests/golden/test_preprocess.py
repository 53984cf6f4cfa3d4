"""Pixels of the release, for every image of ``preprocess.npz``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eaglenet_mm.datasets.transforms import (
    PackRetrievalInputs,
    ResizeCenterCrop,
)
from eaglenet_mm.models.data_preprocessor import RetrievalDataPreprocessor
from tests.golden.cases import place


@pytest.fixture(scope='module')
def golden(golden_dir: Path) -> dict[str, np.ndarray]:
    file = golden_dir / 'preprocess.npz'
    if not file.is_file():
        pytest.skip(f'{golden_dir} holds no preprocess.npz')
    with np.load(file) as arrays:
        return dict(arrays)


def test_pixels_equal_the_release(
    golden: dict[str, np.ndarray], golden_report: Callable
) -> None:
    meta = json.loads(str(golden['meta']))
    preprocessor = place(
        RetrievalDataPreprocessor(meta['mean'], meta['std'], num_frames=1)
    )
    names = [name for name in golden if re.fullmatch(r'.*frame\d+', name)]
    assert names
    for name in names:
        expected = golden[name.replace('frame', 'out')]
        size = expected.shape[-1]
        results = ResizeCenterCrop(size)({'frames': golden[name][None]})
        inputs = PackRetrievalInputs()(results)['inputs']
        batch = preprocessor({'inputs': {'frames': [inputs['frames']]}})
        # one grey level is about 5e-3 of the largest value: none may differ
        golden_report(
            f'preprocess/{name}',
            batch['inputs']['pixels'][0, 0],
            expected,
            1e-5,
        )
        assert batch['inputs']['frame_mask'].all()
