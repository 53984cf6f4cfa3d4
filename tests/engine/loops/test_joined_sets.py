"""Joined test sets: every part keeps its videos, captions and numbers."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch
from mmengine.dataset import ConcatDataset as JoinedByMMEngine
from mmengine.dataset import RepeatDataset
from torch.utils.data import ConcatDataset, DataLoader, Subset

from eaglenet_mm.datasets import TextVideoDataset, write_annotation
from eaglenet_mm.datasets.joined_parts import joined_metainfo, mark_parts
from eaglenet_mm.evaluation.metrics import retrieval_rank_metric
from tests.engine.loops.tiny_retrieval import (
    TinyJoin,
    TinyVideos,
    build_runner,
    collate,
)

A = dict(num_videos=4, max_captions=1, name='a')
B = dict(num_videos=4, max_captions=3, seed=5, name='b')
C = dict(num_videos=3, max_captions=2, seed=6, name='c')


def alone(tmp_path, part: dict) -> dict[str, float]:
    return build_runner(str(tmp_path), dataset=part).test()


def rows_of(tmp_path, dataset: dict, **options) -> tuple[dict, list[dict]]:
    path = tmp_path / 'rows.pkl'
    runner = build_runner(
        str(tmp_path),
        dataset=dataset,
        evaluator=[
            dict(type='RetrievalRankMetric'),
            dict(type='DumpResults', out_file_path=str(path)),
        ],
        **options,
    )
    metrics = runner.test()
    with path.open('rb') as file:
        rows = pickle.load(file)
    return metrics, sorted(rows, key=lambda row: row['caption_index'])


@pytest.mark.parametrize(
    'batch_size',
    [
        pytest.param(1, marks=pytest.mark.nightly),
        pytest.param(5, marks=pytest.mark.nightly),
        3,
    ],
)
def test_parts_have_the_metrics_they_have_alone(tmp_path, batch_size):
    metrics, rows = rows_of(
        tmp_path, dict(parts=[A, B]), batch_size=batch_size
    )
    for name, part in (('a', A), ('b', B)):
        prefix = f'parts/{name}/'
        own = {
            key.removeprefix(prefix): value
            for key, value in metrics.items()
            if key.startswith(prefix)
        }
        assert own == alone(tmp_path, part)
    # the whole: 8 videos, 4 + 7 captions, each with its own
    assert [row['video_id'] for row in rows] == [
        *('a0', 'a1', 'a2', 'a3'),
        *('b0', 'b1', 'b1', 'b2', 'b2', 'b2', 'b3'),
    ]
    assert [row['video_index'] for row in rows] == [
        *(0, 1, 2, 3), *(4, 5, 5, 6, 6, 6, 7),
    ]  # fmt: skip
    assert [row['caption_index'] for row in rows] == list(range(11))
    assert [row['part'] for row in rows] == ['a'] * 4 + ['b'] * 7
    scores = torch.stack([row['scores'] for row in rows])
    assert scores.shape == (11, 8)
    right = torch.tensor([row['column'] for row in rows])
    ranks = (scores >= scores.gather(1, right[:, None])).sum(1)
    assert metrics['t2v/R1'] == 100 * float((ranks == 1).double().mean())
    assert metrics['t2v/MnR'] == pytest.approx(float(ranks.double().mean()))


def test_joins_within_joins(tmp_path):
    flat, rows = rows_of(tmp_path, dict(parts=[A, B, C]))
    nested, again = rows_of(tmp_path, dict(parts=[A, dict(parts=[B, C])]))
    assert nested == flat
    assert 'parts/c/t2v/R1' in nested
    for one, other in zip(rows, again, strict=True):
        assert torch.equal(one.pop('scores'), other.pop('scores'))
        assert one == other


def test_the_line_counts_all_parts(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        retrieval_rank_metric,
        'print_log',
        lambda text, level=logging.INFO, **_: lines.append(text),
    )
    alike = dict(B, max_captions=1)  # equal halves
    metrics = build_runner(
        str(tmp_path), dataset=dict(parts=[A, alike])
    ).test()
    whole, a, b = (line for line in lines if line.startswith('Protocol'))
    assert 'dataset a + b, split test' in whole
    assert 'texts: found 8 of 8, videos: found 8 of 8' in whole
    assert 'Protocol of a: ' in a
    assert 'videos: found 4 of 4' in b
    assert 'videos_found' not in metrics
    lines.clear()
    lost = dict(alike, keep=[0, 1, 3])
    metrics = build_runner(str(tmp_path), dataset=dict(parts=[A, lost])).test()
    assert 'videos: found 7 of 8' in lines[0]
    assert (metrics['videos_found'], metrics['videos_expected']) == (7, 8)
    assert metrics['parts/b/videos_found'] == 3
    assert 'parts/a/videos_found' not in metrics


def test_repeated_items_are_duplicates(tmp_path):
    class Repeated(TinyJoin):
        def __init__(self) -> None:
            part = TinyVideos(5, max_captions=3)
            ConcatDataset.__init__(self, [part, part])

    expected = build_runner(
        str(tmp_path), dataset=dict(num_videos=5, max_captions=3)
    ).test()
    runner = build_runner(str(tmp_path))
    runner._test_dataloader = DataLoader(
        Repeated(), batch_size=3, collate_fn=collate
    )
    assert runner.test() == expected


def test_a_video_of_two_parts_is_one_candidate(tmp_path):
    """It would tie with itself, and come last."""
    one = dict(A, file=True)
    other = dict(one, seed=11, max_captions=3)  # other captions
    metrics, rows = rows_of(tmp_path, dict(parts=[one, other]))
    assert len(rows[0]['scores']) == 4
    assert [row['column'] for row in rows] == [0, 1, 2, 3, 0, 1, 1, 2, 2, 2, 3]
    assert metrics['t2v/ties'] == 0
    assert 'videos_found' not in metrics
    # named apart by their places: all else is the same
    assert {key.split('/')[1] for key in metrics if 'parts' in key} == {
        'a-1', 'a-2',
    }  # fmt: skip
    # another file, or samples that do not tell: another video
    for parts in (
        [one, dict(other, file=False)],
        [A, dict(other, file=False)],
    ):
        _, rows = rows_of(tmp_path, dict(parts=parts))
        assert len(rows[0]['scores']) == 8


def test_two_videos_of_one_index(tmp_path):
    """A data set that joins by itself, without telling."""
    runner = build_runner(str(tmp_path))
    items = [*TinyVideos(**A).items, *TinyVideos(**B).items]
    runner._test_dataloader = DataLoader(
        items, batch_size=3, collate_fn=collate
    )
    with pytest.raises(ValueError, match=r"'a0' and 'b0' have .*index 0"):
        runner.test()


def test_a_caption_index_with_two_sentences(tmp_path):
    items = TinyVideos(**A).items
    items[1]['data_samples'].set_metainfo(dict(caption_indices=[0]))
    runner = build_runner(str(tmp_path))
    runner._test_dataloader = DataLoader(
        items, batch_size=3, collate_fn=collate
    )
    with pytest.raises(ValueError, match=r'Caption index 0 .*different'):
        runner.test()


def test_an_index_beyond_its_part(tmp_path):
    part = TinyVideos(**A)
    part.metainfo['num_videos'] = 3
    runner = build_runner(str(tmp_path))
    runner._test_dataloader = DataLoader(
        ConcatDataset([part, TinyVideos(**B)]),
        batch_size=3,
        collate_fn=collate,
    )
    with pytest.raises(ValueError, match=r"'a' .* has 3 videos, .* index 3"):
        runner.test()


@pytest.mark.parametrize('loop', [dict(shortlist=3), dict(noise_seeds=2)])
def test_two_stages_and_noise(tmp_path, loop):
    head = dict(type='BestFrameHead', noise=0.1)
    metrics = build_runner(
        str(tmp_path),
        dataset=dict(parts=[A, B]),
        model=dict(head=head),
        loop=loop,
    ).test()
    key = 't2v/shortlist_recall' if 'shortlist' in loop else 't2v/R1_std'
    assert {key, f'parts/a/{key}', f'parts/b/{key}'} <= set(metrics)


def test_rescoring_of_a_part_sees_that_part_alone(tmp_path):
    options = dict(
        evaluator=dict(
            type='RetrievalRankMetric',
            post_process=[dict(type='dsl'), dict(type='querybank')],
        )
    )
    metrics = build_runner(
        str(tmp_path), dataset=dict(parts=[A, B]), **options
    ).test()
    expected = build_runner(str(tmp_path), dataset=B, **options).test()
    for key, value in expected.items():
        assert metrics[f'parts/b/{key}'] == value


def write(folder, name: str, count: int, **header) -> TextVideoDataset:
    records = [
        dict(video_id=f'{name}{i}', video=f'{name}{i}.mp4', captions=['x'])
        for i in range(count)
    ]
    path = folder / f'{name}-{len(header)}.json'
    meta = dict(dataset=name, protocol='all', **{'split': 'test', **header})
    write_annotation(path, meta, records)
    return TextVideoDataset(str(path), test_mode=True)


def test_joins_of_mmengine(tmp_path):
    a, b = write(tmp_path, 'a', 2), write(tmp_path, 'b', 3)
    keys = ['dataset', 'num_videos', 'num_captions']
    joined = JoinedByMMEngine([a, b], ignore_keys=keys)
    repeated = ConcatDataset([RepeatDataset(a, 2), RepeatDataset(b, 2)])
    for dataset in (joined, Subset(joined, [0, 4]), repeated):
        parts = mark_parts(dataset)
        assert [part.name for part in parts] == ['a', 'b']
        assert [part.sizes() for part in parts] == [(2, 2), (3, 3)]
        assert joined_metainfo(parts) == dict(
            dataset='a + b', split='test', protocol='all',
            num_videos=5, num_captions=5,
        )  # fmt: skip
    assert joined.get_data_info(2)['video_id'] == 'b0'
    assert mark_parts(RepeatDataset(a, 2)) == []
    assert mark_parts(a) == []
    copy = pickle.loads(pickle.dumps(joined))
    assert copy.datasets[1].part_number == 1
    published = write(tmp_path, 'a', 2, published_videos=7, split='val')
    parts = mark_parts(ConcatDataset([a, published]))
    assert [part.name for part in parts] == ['a-test', 'a-val']
    assert joined_metainfo(parts)['num_videos'] == 9


def test_own_sets_without_counts_are_counted():
    class Own:
        def __init__(self, videos):
            self.videos = videos

        def __len__(self):
            return self.videos

        def __getitem__(self, index):
            return self.get_data_info(index)

        def get_data_info(self, index):
            return dict(video_index=index, caption_indices=[index, 9])

    whole = joined_metainfo(mark_parts(ConcatDataset([Own(2), Own(3)])))
    assert (whole['num_videos'], whole['num_captions']) == (5, 20)
