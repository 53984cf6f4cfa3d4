from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from eaglenet_mm.datasets import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    TextVideoDataset,
    VideoSubset,
    write_annotation,
)
from eaglenet_mm.registry import DATASETS


@pytest.fixture
def dataset(ann_file: str) -> TextVideoDataset:
    return TextVideoDataset(ann_file)


def infos(dataset: Any, key: str) -> list[Any]:
    return [dataset.get_data_info(index)[key] for index in range(len(dataset))]


def identity(item: dict[str, Any]) -> dict[str, Any]:
    return item


def test_caption_expansion(dataset: TextVideoDataset) -> None:
    pairs = CaptionExpansion(dataset)
    assert len(pairs) == 6
    assert infos(pairs, 'captions') == [
        ['one'],
        ['two'],
        ['three'],
        ['four'],
        ['five'],
        ['six'],
    ]
    assert infos(pairs, 'caption_indices') == [[n] for n in range(6)]
    assert infos(pairs, 'video_index') == [0, 0, 0, 1, 2, 2]
    assert pairs.metainfo == dataset.metainfo
    # what is given out is a copy
    assert dataset.get_data_info(0)['captions'] == ['one', 'two', 'three']
    assert infos(CaptionExpansion(pairs), 'captions') == infos(
        pairs, 'captions'
    )


@pytest.fixture
def many(tmp_path: Path, metainfo: dict[str, Any]) -> str:
    path = tmp_path / 'many.json'
    write_annotation(
        path,
        metainfo,
        [
            dict(
                video_id=f'v{video}',
                video='no.mp4',
                captions=[f'{video}-{number}' for number in range(20)],
            )
            for video in range(30)
        ],
    )
    return str(path)


def test_random_caption_depends_on_seed_epoch_and_item(many: str) -> None:
    dataset = TextVideoDataset(many)
    one, other = RandomCaption(dataset), RandomCaption(dataset)
    seeded = RandomCaption(dataset, seed=1)
    for wrapper in (one, other, seeded):
        wrapper.set_epoch(0)
    first = infos(one, 'captions')
    assert infos(other, 'captions') == first
    assert infos(seeded, 'captions') != first
    one.set_epoch(1)
    second = infos(one, 'captions')
    assert second != first
    # as after a resume: the epoch alone brings the captions back
    other.set_epoch(1)
    assert other.get_data_info(7)['captions'] == second[7]
    # not the same place in every video
    assert len({caption.split('-')[1] for [caption] in first}) > 5
    for index in range(len(one)):
        item = one.get_data_info(index)
        video, number = item['captions'][0].split('-')
        assert item['caption_indices'] == [20 * int(video) + int(number)]
        assert item['video_index'] == index == int(video)


def test_random_caption_takes_all_captions_in_time(many: str) -> None:
    wrapper = RandomCaption(TextVideoDataset(many))
    seen = set()
    for epoch in range(200):
        wrapper.set_epoch(epoch)
        seen.add(wrapper.get_data_info(3)['caption_indices'][0])
    assert seen == set(range(60, 80))


def test_living_workers_see_the_epoch(many: str) -> None:
    wrapper = RandomCaption(TextVideoDataset(many, pipeline=[identity]))
    loader = DataLoader(
        wrapper,
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        collate_fn=list,
    )
    for epoch in (0, 1, 0):
        wrapper.set_epoch(epoch)
        got = [item['captions'] for batch in loader for item in batch]
        assert got == infos(wrapper, 'captions')


def test_random_caption_without_epoch(dataset: TextVideoDataset) -> None:
    wrapper = RandomCaption(dataset)
    assert len(wrapper) == 3
    assert wrapper.count_captions(0) == 1
    with pytest.raises(RuntimeError, match='DatasetEpochHook'):
        wrapper[0]


def test_negative_epoch(dataset: TextVideoDataset) -> None:
    with pytest.raises(ValueError, match='at least 0, but got -1'):
        RandomCaption(dataset).set_epoch(-1)


def test_paragraph(dataset: TextVideoDataset) -> None:
    paragraphs = ParagraphDataset(dataset)
    assert infos(paragraphs, 'captions') == [
        ['one two three'],
        ['four'],
        ['five six'],
    ]
    assert infos(paragraphs, 'caption_indices') == [[0], [1], [2]]
    assert paragraphs.metainfo['num_captions'] == 3
    assert dataset.metainfo['num_captions'] == 6
    assert len(CaptionExpansion(paragraphs)) == 3


def test_subset(dataset: TextVideoDataset) -> None:
    subset = VideoSubset(dataset, [2, 0])
    assert infos(subset, 'video_id') == ['c', 'a']
    assert infos(subset, 'video_index') == [0, 1]
    assert infos(subset, 'caption_indices') == [[0, 1], [2, 3, 4]]
    assert subset.metainfo['num_videos'] == 2
    assert subset.metainfo['num_captions'] == 5
    assert subset.metainfo['subset_of'] == 3
    pairs = CaptionExpansion(subset)
    assert infos(pairs, 'captions') == [
        ['five'],
        ['six'],
        ['one'],
        ['two'],
        ['three'],
    ]
    paragraphs = ParagraphDataset(subset)
    assert infos(paragraphs, 'caption_indices') == [[0], [1]]
    assert paragraphs.metainfo['num_captions'] == 2
    assert infos(VideoSubset(dataset, 2), 'video_id') == ['a', 'b']


@pytest.mark.parametrize('indices', [0, 4, [], [0, 0], [-1], [1, 3]])
def test_impossible_subset(
    dataset: TextVideoDataset, indices: int | list[int]
) -> None:
    with pytest.raises(ValueError, match='different items from 0 to 2'):
        VideoSubset(dataset, indices)


def test_nested_config(ann_file: str) -> None:
    pairs = DATASETS.build(
        dict(
            type='CaptionExpansion',
            dataset=dict(
                type='VideoSubset',
                indices=1,
                dataset=dict(type='TextVideoDataset', ann_file=ann_file),
            ),
        )
    )
    assert infos(pairs, 'captions') == [['one'], ['two'], ['three']]
