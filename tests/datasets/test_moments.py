"""When captions are shown, from the file to the sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.dataset import ConcatDataset

from eaglenet_mm.datasets import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    TextVideoDataset,
    VideoSubset,
    check_annotation,
    write_annotation,
)


@pytest.fixture
def timed(
    tmp_path: Path, metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> str:
    """'a' and 'c' have moments; 'b' has none; a text has no video."""
    records[0]['moments'] = [[[0, 1]], [[1, 2.5], [2, 3]], [[0.5, 3]]]
    records[2]['moments'] = [[[0, 1]], [[1, 2]]]
    metainfo['queries'] = [dict(caption='nothing of the kind')]
    path = tmp_path / 'timed.json'
    write_annotation(path, metainfo, records)
    return str(path)


def moments_of(dataset: Any) -> list[Any]:
    return [
        dataset.get_data_info(place).get('moments')
        for place in range(len(dataset))
    ]


def test_items(timed: str) -> None:
    a, b, c = moments_of(TextVideoDataset(timed))
    assert a == [[[0, 1]], [[1, 2.5], [2, 3]], [[0.5, 3]]]
    assert b is None
    assert c == [[[0, 1]], [[1, 2]]]
    tested = moments_of(TextVideoDataset(timed, test_mode=True))
    assert tested[0] == [*a, []]
    assert tested[1:] == [b, c]


def test_wrappers(timed: str) -> None:
    dataset = TextVideoDataset(timed)
    pairs = moments_of(CaptionExpansion(dataset))
    assert pairs[1] == [[[1, 2.5], [2, 3]]]
    assert pairs[3] is None
    assert pairs[4:] == [[[[0, 1]]], [[[1, 2]]]]
    drawn = RandomCaption(dataset)
    drawn.set_epoch(0)
    item = drawn.get_data_info(0)
    place = ['one', 'two', 'three'].index(item['captions'][0])
    assert item['moments'] == [moments_of(dataset)[0][place]]
    assert moments_of(ParagraphDataset(dataset)) == [None] * 3
    assert moments_of(VideoSubset(dataset, [2])) == [[[[0, 1]], [[1, 2]]]]
    joined = ConcatDataset([dataset, TextVideoDataset(timed)])
    assert moments_of(CaptionExpansion(joined))[-1] == [[[1, 2]]]


def test_samples(
    timed: str, pipeline: list[dict[str, Any]], clips: None, tmp_path: Path
) -> None:
    dataset = TextVideoDataset(
        timed, data_prefix=dict(video=str(tmp_path)), pipeline=pipeline
    )
    assert dataset[2]['data_samples'].moments == [[[0, 1]], [[1, 2]]]
    assert 'moments' not in dataset[1]['data_samples']


@pytest.mark.parametrize(
    ('moments', 'error', 'message'),
    [
        (
            [[[0, 1]]],
            ValueError,
            'each of the 3 captions, but got list with 1',
        ),
        ({}, ValueError, 'each of the 3 captions, but got dict'),
        ([[[1, 2]], [], [[1, 2]]], ValueError, r'\[1\] must be .* got \[\]'),
        ([[[1, 2]], [[1, 2]], [0, 1]], TypeError, r'\[2\] must hold.* got 0'),
        ([[[0, 1, 2]]] * 3, TypeError, r'pairs .* got \[0, 1, 2\]'),
        ([[[False, 1]]] * 3, TypeError, r'got \[False, 1\]'),
        ([[['0', 1]]] * 3, TypeError, r"got \['0', 1\]"),
        ([[[0, float('nan')]]] * 3, ValueError, 'must be finite'),
        ([[[2, 2]]] * 3, ValueError, r'before it ends, but got \[2, 2\]'),
        ([[[3, 2]]] * 3, ValueError, r'before it ends, but got \[3, 2\]'),
        ([[[-1, 2]]] * 3, ValueError, r'from 1 to 9, but got \[-1, 2\]'),
        ([[[0.5, 2]]] * 3, ValueError, r'within the clip.*\[0.5, 2\]'),
        ([[[2, 9.5]]] * 3, ValueError, r'within the clip.*\[2, 9.5\]'),
    ],
)
def test_bad_moments(
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    moments: Any,
    error: type[Exception],
    message: str,
) -> None:
    records[0].update(start=1, end=9, moments=moments)
    with pytest.raises(error, match=message) as caught:
        check_annotation(metainfo, records, 'file')
    assert "file: record 0 ('a'): 'moments'" in str(caught.value)


def test_a_clip_without_an_end_bounds_no_moment(
    metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    records[2]['moments'] = [[[0, 1e4]], [[1, 2]]]
    assert check_annotation(metainfo, records, 'file')[1] == records
    records[2]['moments'][0] = [[-1, 2]]
    with pytest.raises(ValueError, match='to the end of the file'):
        check_annotation(metainfo, records, 'file')


def test_a_file_keeps_moments(timed: str) -> None:
    with open(timed, encoding='utf-8') as file:
        records = json.load(file)['data_list']
    assert records[0]['moments'][1] == [[1, 2.5], [2, 3]]
    assert 'moments' not in records[1]
