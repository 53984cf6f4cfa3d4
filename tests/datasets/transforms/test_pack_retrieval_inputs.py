from __future__ import annotations

import numpy as np
import pytest
import torch

from eaglenet_mm.datasets import PackRetrievalInputs
from eaglenet_mm.structures import RetrievalDataSample


def test_packs() -> None:
    frames = np.random.default_rng(0).integers(
        0, 256, (2, 5, 7, 3), dtype=np.uint8
    )
    token_ids = torch.arange(6).view(2, 3)
    meta = dict(
        video_id='v',
        video='v.mp4',
        video_index=4,
        captions=['one', 'two'],
        caption_indices=[8, 9],
        frame_indices=[0, 10],
        num_frames_found=2,
    )
    packed = PackRetrievalInputs()(
        dict(frames=frames, token_ids=token_ids, fps=25, start=None, **meta)
    )
    assert set(packed) == {'inputs', 'data_samples'}
    got = packed['inputs']['frames']
    assert got.dtype == torch.uint8
    assert got.shape == (2, 3, 5, 7)
    assert got.is_contiguous()
    for channel in range(3):
        np.testing.assert_array_equal(got[:, channel], frames[..., channel])
    assert packed['inputs']['token_ids'] is token_ids
    sample = packed['data_samples']
    assert isinstance(sample, RetrievalDataSample)
    assert sample.metainfo == meta
    assert repr(PackRetrievalInputs()) == 'PackRetrievalInputs()'


@pytest.mark.parametrize('key', ['frames', 'token_ids'])
def test_one_side_alone(key: str) -> None:
    values = dict(
        frames=np.zeros((1, 2, 2, 3), dtype=np.uint8),
        token_ids=torch.zeros(1, 3, dtype=torch.int64),
    )
    packed = PackRetrievalInputs()({key: values[key]})
    assert set(packed['inputs']) == {key}


def test_nothing_to_pack() -> None:
    with pytest.raises(KeyError, match=r"'frames' or 'token_ids'.*'video'"):
        PackRetrievalInputs()(dict(video='v.mp4'))
