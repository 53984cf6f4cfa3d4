"""Numbers of frames that the parts of a config state."""

from __future__ import annotations

import re

import pytest
from mmengine.config import Config

from eaglenet_mm.apis.retriever_encoding import RetrieverEncoder
from eaglenet_mm.config.frame_counts import check_frame_counts
from eaglenet_mm.config.reading import open_config
from eaglenet_mm.launching import build_runner

TEST = 'test_dataloader.dataset.pipeline.1.num_frames'
PADDED = 'model.data_preprocessor.num_frames'
HEAD = 'model.head.num_frames'


@pytest.mark.parametrize('place', [TEST, PADDED, HEAD])
def test_one_that_differs_is_refused(place: str) -> None:
    cfg = open_config('eaglenet_msrvtt', {place: 4})
    with pytest.raises(ValueError, match='--cfg-options num_frames=N') as info:
        check_frame_counts(cfg)
    told = str(info.value)
    for name in (TEST, PADDED, HEAD):
        assert f'{name}={4 if name == place else 12}' in told


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('eaglenet_msrvtt', {}),
        ('eaglenet_msrvtt', {'num_frames': 4}),
        ('mean_pooling_msrvtt', {}),  # a head without a number
        ('eaglenet_swin3d_msrvtt', {}),  # 6 steps of 12 frames
        ('clip4clip_videomae_msrvtt', {}),
    ],
)
def test_what_agrees_passes(name: str, options: dict) -> None:
    check_frame_counts(open_config(name, options))


def test_a_head_without_a_number_is_left_out() -> None:
    cfg = open_config('mean_pooling_msrvtt', {PADDED: 16})
    with pytest.raises(ValueError, match=re.escape(f'{PADDED}=16')):
        check_frame_counts(cfg)


def test_models_of_others_pass() -> None:
    check_frame_counts(Config(dict(model=dict(type='Mine'))))
    check_frame_counts(Config())


def test_nothing_starts_with_such_a_config() -> None:
    cfg = open_config('eaglenet_msrvtt', {HEAD: 4})
    with pytest.raises(ValueError, match=f'{HEAD}=4'):
        build_runner(cfg, strict=False)
    with pytest.raises(ValueError, match=f'{HEAD}=4'):
        RetrieverEncoder(cfg, None)
