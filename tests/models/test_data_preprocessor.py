from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from eaglenet_mm.models.data_preprocessor import (
    CLIP_MEAN,
    CLIP_STD,
    RetrievalDataPreprocessor,
)
from eaglenet_mm.registry import MODELS
from eaglenet_mm.structures import RetrievalDataSample


def frames(count: int, size: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def ids(count: int, length: int = 5) -> Tensor:
    return torch.randint(1, 9, (count, length))


@pytest.fixture
def batch() -> dict[str, Any]:
    return dict(
        inputs=dict(
            frames=[frames(3), frames(1), frames(4)],
            token_ids=[ids(2), ids(1), ids(3)],
        ),
        data_samples=[
            RetrievalDataSample(metainfo=dict(video_id=name)) for name in 'abc'
        ],
    )


def test_a_batch(batch: dict[str, Any]) -> None:
    got = RetrievalDataPreprocessor(num_frames=4)(batch, training=True)
    inputs = got['inputs']
    assert inputs['pixels'].shape == (3, 4, 3, 4, 4)
    assert inputs['pixels'].dtype == torch.float32
    assert inputs['frame_mask'].tolist() == [
        [True, True, True, False],
        [True, False, False, False],
        [True, True, True, True],
    ]
    for item, video in enumerate(batch['inputs']['frames']):
        for frame in range(4):
            pixels = inputs['pixels'][item, frame]
            if frame >= len(video):
                assert not pixels.any()
                continue
            for channel in range(3):
                expected = (
                    video[frame, channel].double() / 255 - CLIP_MEAN[channel]
                ) / CLIP_STD[channel]
                torch.testing.assert_close(
                    pixels[channel].double(), expected, rtol=0, atol=1e-6
                )
    assert inputs['caption_counts'].tolist() == [2, 1, 3]
    assert inputs['caption_counts'].dtype == torch.int64
    assert torch.equal(
        inputs['token_ids'], torch.cat(batch['inputs']['token_ids'])
    )
    assert [sample.video_id for sample in got['data_samples']] == list('abc')
    # the batch of the loader stays as it was
    assert batch['inputs']['frames'][0].dtype == torch.uint8


def test_other_statistics(batch: dict[str, Any]) -> None:
    preprocessor = MODELS.build(
        dict(
            type='RetrievalDataPreprocessor',
            mean=[0.5] * 3,
            std=[0.5] * 3,
            num_frames=6,
        )
    )
    pixels = preprocessor(batch)['inputs']['pixels']
    assert pixels.shape[1] == 6
    assert pixels.min() >= -1
    assert pixels.max() <= 1


@pytest.mark.parametrize('key', ['frames', 'token_ids'])
def test_one_side_alone(batch: dict[str, Any], key: str) -> None:
    inputs = {key: batch['inputs'][key]}
    got = RetrievalDataPreprocessor(num_frames=4)(dict(inputs=inputs))
    assert set(got['inputs']) == (
        {'pixels', 'frame_mask'}
        if key == 'frames'
        else {'token_ids', 'caption_counts'}
    )
    assert got['data_samples'] is None


def test_statistics_are_no_part_of_a_checkpoint() -> None:
    assert not RetrievalDataPreprocessor(num_frames=4).state_dict()


def test_too_many_frames_names_all_three_places() -> None:
    preprocessor = RetrievalDataPreprocessor(num_frames=4)
    with pytest.raises(ValueError, match='item 1 has 5') as caught:
        preprocessor(dict(inputs=dict(frames=[frames(2), frames(5)])))
    for name in ('SampleFrames', 'data_preprocessor', 'model.head.num_frames'):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ('inputs', 'error', 'message'),
    [
        (dict(), KeyError, r"'frames' or 'token_ids'.*\[\]"),
        (dict(frames=[frames(1, 4), frames(1, 5)]), ValueError, r'\(5, 5\)'),
        (dict(frames=[frames(1).float()]), TypeError, r'torch\.float32'),
        (dict(frames=[frames(0)]), ValueError, r'\(0, 3, 4, 4\)'),
        (dict(frames=[frames(2)[0]]), ValueError, r'\(3, 4, 4\)'),
        (
            dict(frames=[frames(2).permute(0, 2, 3, 1)]),
            ValueError,
            r'\(2, 4, 4, 3\)',
        ),
        (dict(token_ids=[ids(1), ids(1, 6)]), ValueError, r'\[5, 6\]'),
        (dict(token_ids=[ids(1).int()]), TypeError, r'torch\.int32'),
        (dict(token_ids=[ids(1)[0]]), ValueError, r'has \(5,\)'),
        (dict(token_ids=[ids(1), ids(0)]), ValueError, r'item 1 has \(0, 5\)'),
    ],
)
def test_bad_batches(
    inputs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RetrievalDataPreprocessor(num_frames=4)(dict(inputs=inputs))


@pytest.mark.parametrize(
    'change',
    [
        dict(mean=[0.5, 0.5]),
        dict(std=[0.5]),
        dict(mean=[123.7, 116.3, 103.5]),
        dict(std=[0.5, 0.5, 0]),
    ],
)
def test_bad_statistics(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='three numbers each'):
        RetrievalDataPreprocessor(num_frames=4, **change)


def test_bad_num_frames() -> None:
    with pytest.raises(ValueError, match='at least 1, but got 0'):
        RetrievalDataPreprocessor(num_frames=0)
