"""Captions with several right videos or none, videos without a caption."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from eaglenet_mm.evaluation import KeptScores
from eaglenet_mm.evaluation.functional import (
    text_to_video_ranks,
    video_to_text_ranks,
)
from eaglenet_mm.evaluation.metrics import retrieval_rank_metric
from tests.engine.loops.tiny_retrieval import TinyVideos, build_runner, collate

EVERY = [f'clip{i}' for i in range(8)]


def test_one_sentence_for_eight_videos(tmp_path):
    own = dict(num_videos=8, same_words=True)
    before = build_runner(str(tmp_path), dataset=own).test()
    assert before['t2v/R1'] == 12.5  # one of them is ranked first
    every = dict(own, positives=dict.fromkeys(range(8), EVERY))
    metrics = build_runner(str(tmp_path), dataset=every).test()
    assert metrics['t2v/R1'] == metrics['v2t/R1'] == 100.0
    assert metrics['t2v/MdR'] == metrics['t2v/MnR'] == 1.0
    assert metrics['t2v/mAP5'] == metrics['t2v/nDCG50'] == 100.0
    assert metrics['t2v/ties'] == metrics['v2t/ties'] == 0.0


def test_one_caption_index_in_several_items(tmp_path):
    items = TinyVideos(8, same_words=True).items
    for item in items:
        item['data_samples'].set_metainfo(dict(caption_indices=[0]))
    runner = build_runner(str(tmp_path))
    runner._test_dataloader = DataLoader(
        items, batch_size=3, collate_fn=collate
    )
    metrics = runner.test()
    assert metrics['t2v/R1'] == 100.0
    assert metrics['v2t/R1'] == 100.0  # the one text there is


def test_the_default_has_the_keys_and_numbers_of_one_answer(tmp_path):
    plain = dict(num_videos=7, max_captions=3)
    same = dict(plain, positives={})  # every caption its own video
    expected = build_runner(str(tmp_path), dataset=plain).test()
    assert build_runner(str(tmp_path), dataset=same).test() == expected
    names = {'R1', 'R5', 'R10', 'R50', 'MdR', 'MnR', 'ties'}
    assert set(expected) == {
        'Rsum', *(f'{way}/{name}' for way in ('t2v', 'v2t') for name in names)
    }  # fmt: skip


def run(tmp_path, **options: Any) -> tuple[dict, list[dict], list[str], Any]:
    """Metrics, rows, lines of the log, and what was kept."""
    lines: list[str] = []
    path = tmp_path / 'rows.pkl'
    runner = build_runner(
        str(tmp_path),
        evaluator=[
            dict(type='RetrievalRankMetric'),
            dict(type='DumpResults', out_file_path=str(path)),
        ],
        **options,
    )
    kept = KeptScores()
    runner.test_evaluator.metrics.append(kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            retrieval_rank_metric,
            'print_log',
            lambda text, level=logging.INFO, **_: lines.append(text),
        )
        metrics = runner.test()
    with path.open('rb') as file:
        return metrics, pickle.load(file), lines, kept


@pytest.mark.parametrize(
    'batch_size', [pytest.param(1, marks=pytest.mark.nightly), 4]
)
def test_texts_and_videos_without_an_answer(tmp_path, batch_size):
    dataset = dict(
        num_videos=9,
        max_captions=3,
        no_captions=[2, 6],
        positives={0: ['clip0', 'clip4', 'clip6'], 3: [], 4: ['clip8']},
    )
    metrics, rows, lines, kept = run(
        tmp_path, dataset=dataset, batch_size=batch_size
    )
    rows.sort(key=lambda row: row['caption_index'])
    assert rows[0]['positives'] == [0, 4, 6]
    assert rows[0]['column'] == 0
    assert (rows[3]['positives'], rows[3]['column']) == ([], -1)
    assert (rows[3]['video_index'], rows[3]['video_id']) == (-1, '')
    # stands with clip4, fits clip8 alone
    assert (rows[4]['positives'], rows[4]['video_id']) == ([8], 'clip8')
    scores = torch.stack([row['scores'] for row in rows])
    assert torch.equal(kept.scores, scores)
    ranks = []
    for row in rows:
        own = row['positives']
        if own:
            best = max(row['scores'][own])
            wrong = [
                float(x) for v, x in enumerate(row['scores']) if v not in own
            ]
            ranks.append(1 + sum(x >= float(best) for x in wrong))
    assert metrics['t2v/MnR'] == pytest.approx(sum(ranks) / len(ranks))
    found = text_to_video_ranks(kept.scores, kept.right)
    assert found.ranks.tolist() == ranks
    assert metrics['t2v/unanswerable'] == 1
    # clip2 has no text, and clip3 none that fits; clip6 has caption 0
    assert metrics['v2t/unanswerable'] == 2
    assert video_to_text_ranks(kept.scores, kept.right).queries.tolist() == [
        v for v in range(9) if v not in (2, 3)
    ]
    assert (
        '1 texts without a right video are no queries, 2 videos without a '
        'text are no queries'
    ) in lines[0]
    assert '15 right pairs, any right one counts' in lines[0]


def test_batches_and_pairs_do_not_matter(tmp_path):
    dataset = dict(
        num_videos=7, max_captions=3, positives={0: [], 2: ['clip1', 'clip5']}
    )
    expected = run(tmp_path, dataset=dataset, batch_size=2)[0]
    assert run(tmp_path, dataset=dataset, batch_size=5)[0] == expected


def test_no_query_is_left(tmp_path):
    dataset = dict(num_videos=3, positives={0: [], 1: ['gone'], 2: []})
    with pytest.raises(
        ValueError, match=r'None of the 3 texts .* of the gallery'
    ):
        build_runner(str(tmp_path), dataset=dataset).test()


def test_a_part_without_a_query(tmp_path):
    """The whole has some: the part is counted, and has no recall."""
    empty = dict(num_videos=3, name='b', no_captions=[0, 1, 2])
    metrics = build_runner(
        str(tmp_path), dataset=dict(parts=[dict(num_videos=4), empty])
    ).test()
    assert metrics['t2v/R50'] == 100.0
    assert 'parts/tiny/t2v/R1' in metrics
    assert not any(key.startswith('parts/b') for key in metrics)


@pytest.mark.parametrize(
    'evaluator',
    [
        dict(post_process=[dict(type='dsl'), dict(type='querybank')]),
        dict(bootstrap=dict(num_samples=50)),
    ],
)
@pytest.mark.parametrize(
    'shortlist', [pytest.param(0, marks=pytest.mark.nightly), 4]
)
def test_everything_else_takes_several_answers(tmp_path, evaluator, shortlist):
    metrics = build_runner(
        str(tmp_path),
        dataset=dict(
            num_videos=9,
            max_captions=3,
            no_captions=[2],
            positives={0: ['clip0', 'clip4'], 3: []},
        ),
        model=dict(head=dict(type='BestFrameHead', noise=0.1)),
        loop=dict(shortlist=shortlist, noise_seeds=2),
        evaluator=dict(type='RetrievalRankMetric', **evaluator),
    ).test()
    assert 't2v/nDCG10_std' in metrics
    assert 't2v/unanswerable_std' not in metrics
    if 'bootstrap' in evaluator:
        assert metrics['t2v/R1_low'] <= metrics['t2v/R1']
    else:
        assert {'t2v_dsl/mAP5', 'v2t_querybank/R1'} <= set(metrics)
    assert ('t2v/shortlist_recall' in metrics) is bool(shortlist)


def test_positives_that_do_not_fit_the_captions(tmp_path):
    items = TinyVideos(3).items
    items[1]['data_samples'].set_metainfo(dict(positives=[]))
    runner = build_runner(str(tmp_path))
    runner._test_dataloader = DataLoader(
        items, batch_size=3, collate_fn=collate
    )
    with pytest.raises(
        ValueError, match="'clip1' has positives of 0 captions"
    ):
        runner.test()


def test_positives_of_an_id_that_two_videos_have(tmp_path):
    items = TinyVideos(3, positives={0: ['clip1']}).items
    items[2]['data_samples'].set_metainfo(dict(video_id='clip1'))
    runner = build_runner(str(tmp_path))
    runner._test_dataloader = DataLoader(
        items, batch_size=3, collate_fn=collate
    )
    with pytest.raises(ValueError, match="name 'clip1', but 2 videos"):
        runner.test()
