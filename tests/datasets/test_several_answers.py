"""Captions that fit several videos or none, from the file to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import pseudo_collate

from eaglenet_mm.datasets import (
    CaptionExpansion,
    ParagraphDataset,
    RandomCaption,
    TextVideoDataset,
    VideoSubset,
    write_annotation,
)
from eaglenet_mm.datasets import text_video_dataset as module
from eaglenet_mm.models import RetrievalDataPreprocessor


@pytest.fixture
def answers(
    tmp_path: Path, metainfo: dict[str, Any], records: list[dict[str, Any]]
) -> str:
    """'b' has no caption; 'two' fits 'b' too; two texts have no video."""
    records[0]['positives'] = [[], ['b'], []]
    records[1]['captions'] = []
    metainfo['queries'] = [
        dict(caption='nothing of the kind'),
        dict(caption='b or c', positives=['b', 'c']),
    ]
    path = tmp_path / 'answers.json'
    write_annotation(path, metainfo, records)
    return str(path)


def items_of(dataset: Any) -> list[dict[str, Any]]:
    return [dataset.get_data_info(place) for place in range(len(dataset))]


def test_items(answers: str) -> None:
    dataset = TextVideoDataset(answers, test_mode=True)
    a, b, c = items_of(dataset)
    assert a['captions'] == ['one', 'two', 'three', 'nothing of the kind']
    assert a['caption_indices'] == [0, 1, 2, 5]
    assert a['positives'] == [['a'], ['a', 'b'], ['a'], []]
    assert b['captions'] == ['b or c']
    assert b['caption_indices'] == [6]
    assert b['positives'] == [['b', 'c']]
    assert c['positives'] == [['c'], ['c']]
    assert dataset.metainfo['num_captions'] == 7
    assert dataset.metainfo['queries'] == 2


def test_texts_without_a_video_are_no_pairs_to_train_on(
    answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(
        module, 'print_log', lambda text, **_: lines.append(text)
    )
    dataset = TextVideoDataset(answers)
    assert dataset.metainfo['num_captions'] == 5
    assert '2 texts' in lines[0]
    assert 'test_mode=False' in lines[0]
    pairs = CaptionExpansion(dataset)
    assert [item['captions'] for item in items_of(pairs)] == [
        ['one'], ['two'], ['three'], ['five'], ['six'],
    ]  # fmt: skip
    assert [item['video_id'] for item in items_of(pairs)] == list('aaacc')
    assert items_of(pairs)[1]['positives'] == [['a', 'b']]


@pytest.mark.parametrize('where', ['header', 'option'])
def test_shared_captions(
    tmp_path: Path,
    metainfo: dict[str, Any],
    records: list[dict[str, Any]],
    where: str,
) -> None:
    records[2]['captions'] = ['one', 'six']
    metainfo['shared_captions'] = where == 'header'
    path = tmp_path / 'shared.json'
    write_annotation(path, metainfo, records)
    option = None if where == 'header' else True
    dataset = TextVideoDataset(str(path), shared_captions=option)
    a, b, c = items_of(dataset)
    assert a['positives'] == [['a', 'c'], ['a'], ['a']]
    assert b['positives'] == [['b']]
    assert c['positives'] == [['c', 'a'], ['c']]
    off = TextVideoDataset(str(path), shared_captions=False)
    assert all('positives' not in item for item in items_of(off))


def test_a_subset_keeps_what_is_right(answers: str) -> None:
    dataset = TextVideoDataset(answers, test_mode=True)
    subset = VideoSubset(dataset, [1, 2])
    b, c = items_of(subset)
    assert (b['video_index'], b['caption_indices']) == (0, [0])
    assert b['positives'] == [['b', 'c']]  # by id, so numbers do not matter
    assert (c['video_index'], c['caption_indices']) == (1, [1, 2])
    assert subset.metainfo['num_captions'] == 3


def test_videos_without_caption_in_wrappers(
    answers: str, tmp_path: Path, metainfo: dict[str, Any]
) -> None:
    drawn = RandomCaption(TextVideoDataset(answers))
    drawn.set_epoch(0)
    assert [item['video_id'] for item in items_of(drawn)] == ['a', 'c']
    with pytest.raises(ValueError, match="video \\('queries'"):
        ParagraphDataset(TextVideoDataset(answers, test_mode=True))
    paragraphs = ParagraphDataset(TextVideoDataset(answers))
    a, c = items_of(paragraphs)
    assert (a['captions'], a['positives']) == (['one two three'], [['a']])
    assert (c['captions'], c['caption_indices']) == (['five six'], [1])
    assert paragraphs.metainfo['num_captions'] == 2
    bare = tmp_path / 'bare.json'
    record = dict(video_id='a', video='a.mp4', captions=[])
    metainfo.pop('queries')
    write_annotation(bare, metainfo, [record])
    with pytest.raises(ValueError, match='none of the 1 items'):
        CaptionExpansion(TextVideoDataset(str(bare)))


def test_videos_without_caption_are_evaluated_but_not_trained_on(
    answers: str, clips: None, pipeline: list[dict[str, Any]]
) -> None:
    folder = str(Path(answers).parent)
    dataset = TextVideoDataset(
        answers, pipeline=pipeline, data_prefix=dict(video=folder)
    )
    items = [dataset[place] for place in range(3)]
    assert items[1]['inputs']['token_ids'].shape == (0, 8)
    preprocessor = RetrievalDataPreprocessor(num_frames=4)
    inputs = preprocessor(pseudo_collate(items))['inputs']
    assert inputs['caption_counts'].tolist() == [3, 0, 2]
    assert len(inputs['token_ids']) == 5
    alone = preprocessor(pseudo_collate(items[1:2]))['inputs']
    assert alone['token_ids'].shape == (0, 8)
    assert alone['token_ids'].dtype == torch.int64
    with pytest.raises(ValueError, match="'b' has no caption"):
        preprocessor(pseudo_collate(items), True)
