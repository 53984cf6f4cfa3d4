from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eaglenet_mm.datasets import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    RetrievalDatasetWrapper,
    TextVideoDataset,
    VideoReadError,
    VideoSubset,
)


def test_builds_from_a_config(ann_file: str) -> None:
    wrapper = RetrievalDatasetWrapper(
        dict(type='TextVideoDataset', ann_file=ann_file, lazy_init=True)
    )
    assert len(wrapper) == 3
    assert wrapper.metainfo['num_videos'] == 3
    assert wrapper.test_mode is False
    assert wrapper.max_refetch == 100
    assert wrapper.count_captions(0) == 3
    assert wrapper.get_data_info(0)['video_id'] == 'a'


def test_refuses_other_data_sets() -> None:
    with pytest.raises(TypeError, match=r'wraps a TextVideoDataset.*got list'):
        RetrievalDatasetWrapper([])


@pytest.mark.parametrize(
    'wrap', [ParagraphDataset, lambda inner: VideoSubset(inner, 1)]
)
def test_some_need_whole_videos(ann_file: str, wrap: Callable) -> None:
    pairs = CaptionExpansion(TextVideoDataset(ann_file))
    assert not RandomCaption(pairs).items_are_videos
    with pytest.raises(TypeError, match='needs items that are whole videos'):
        wrap(pairs)


def test_epoch_reaches_the_inside(ann_file: str) -> None:
    inner = RandomCaption(TextVideoDataset(ann_file))
    outer = CaptionExpansion(VideoSubset(inner, 2))
    outer.set_epoch(0)
    assert len(outer) == 2
    assert outer.get_data_info(1)['captions'] == ['four']


def test_items_go_through_the_pipeline(
    ann_file: str, clips: None, pipeline: list[dict[str, Any]]
) -> None:
    folder = Path(ann_file).parent
    dataset = TextVideoDataset(
        ann_file,
        data_prefix=dict(video=str(folder)),
        pipeline=pipeline,
        on_missing='skip',
    )
    pairs = CaptionExpansion(dataset)
    assert pairs[1]['data_samples'].captions == ['two']
    assert pairs[1]['inputs']['token_ids'].shape == (1, 8)
    (folder / 'b.mp4').write_bytes(b'')
    assert pairs[3]['data_samples'].video_id != 'b'
    dataset.on_missing = 'raise'
    with pytest.raises(VideoReadError, match="'b'"):
        pairs[3]
